"""What all stopping rules share: a run ends where what they measure is reached."""

from abc import abstractmethod
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measurements import Measurement
from lnsgd.callbacks.per_example_loss import PerExampleLoss, per_example_loss
from lnsgd.data import ReplicatedData
from lnsgd.measures import Performance, performance
from lnsgd.modules import ReplicatedModule
from lnsgd.modules.replicated import Subject
from lnsgd.schedules import every

# What the records say of a run, or a replica, that ended otherwise than by a rule.
LIMIT = "limit"


class StoppingRule(DataCallback):
    """Base of the stopping rules. A subclass says what is measured, `value`, and when that is enough, `holds`.

    Measures training examples, with the labels of the data, at the schedule of `MeasureCallback`. At the first
    measurement at which the rule is satisfied an ordinary run ends. In a replicated run that replica stops: it keeps
    its weights, which all later measurements are of, and the run ends with the last replica that moves. Of several
    rules the first to be satisfied counts; before the Trainer's ``min_epochs`` and ``min_steps`` none does.

    Logs what it measures. ``finished.json`` and ``replicas.csv`` say which rule stopped a run or a replica, and
    ``limit`` where none did before the run ended; a line at the end of training says so too.

    An epoch of a replicated run is one of its largest training set.

    Args:
        examples: Measure this many training examples, a fixed keyed subset; ``null`` for all.
        in_a_row: At how many measurements in a row it must hold, the one before the first step included.
        options: See `DataCallback`; without ``max_overhead``.

    Raises:
        ValueError: ``max_overhead``; ``in_a_row`` below 1.

    Attributes:
        stopped_at: Step at which it has ended an ordinary run.
    """

    def __init__(self, examples: int | None = None, in_a_row: int = 1, **options: Any) -> None:
        if options.get("max_overhead") is not None:
            raise ValueError(
                f"{self.name}: max_overhead = {options['max_overhead']} would let the clock decide when a run "
                "ends; leave it out"
            )
        if in_a_row < 1:
            raise ValueError(f"{self.name}: in_a_row = {in_a_row}; give an integer >= 1")
        super().__init__(**options)
        self.examples = examples
        self.in_a_row = in_a_row
        self._start_anew()

    def _start_anew(self) -> None:
        self.stopped_at: int | None = None
        self._held: dict[int, int] = {}  # by replica: at how many measurements in a row, up to the last
        self._final: dict[int, float] = {}  # of replicas that take no further step

    @property
    def name(self) -> str:
        """What the records call it."""
        return type(self).__name__

    @abstractmethod
    def value(self, trainer: Trainer, subject: Subject) -> float:
        """What is measured, the same on all processes."""

    @abstractmethod
    def holds(self, value: float) -> bool:
        """Whether that is enough; never of NaN."""

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "examples": self.examples, "in_a_row": self.in_a_row}

    def state_dict(self) -> dict[str, Any]:
        """Also where it stands."""
        return {**super().state_dict(), "stopped_at": self.stopped_at, "held": dict(self._held)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes that back."""
        super().load_state_dict(state_dict)
        self.stopped_at, self._held = state_dict["stopped_at"], dict(state_dict["held"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Counts epochs in steps, where the whole run is one epoch of Lightning."""
        super().setup(trainer, pl_module, stage)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and isinstance(data, ReplicatedData) and data.endless and self._epoch_due:
            assert isinstance(self._epoch_due, every)
            self._step_due, self._epoch_due = every(self._epoch_due.n * data.steps_per_epoch), None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the initial network; a run that had ended does not go on."""
        if trainer.ckpt_path is None and trainer.global_step == 0:
            self._start_anew()
        if self.stopped_at is not None:
            trainer.should_stop = True
        super().on_train_start(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says, once for all rules, which has ended an ordinary run, or what has reached the limit before them."""
        rules = rules_of(trainer)
        if trainer.interrupted or not trainer.is_global_zero or rules[0] is not self:
            return
        them = " or ".join(map(str, rules))
        if isinstance(pl_module, ReplicatedModule):
            if moving := pl_module.frozen.moving:
                many = f"{len(moving)} of {len(pl_module.replicas)} replicas"
                print(f"{many} reached the limit, step {trainer.global_step}, before {them}")
        elif ending := [rule for rule in rules if rule.stopped_at is not None]:
            print(f"{ending[0]} ended the run at step {ending[0].stopped_at}")
        else:
            print(f"The run reached its limit, step {trainer.global_step}, before {them}")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """The value; a replica that takes no further step keeps its own."""
        value = self._final.get(subject.replica)
        if value is None:
            value = self.value(trainer, subject)
        return [Measurement(self.headline[0], "train", "", value)]

    def performance(self, trainer: Trainer, subject: Subject, loss: PerExampleLoss | None) -> Performance:
        """Loss, by default the module's own, and error on the training examples."""
        return performance(
            subject.module,
            per_example_loss(loss, subject.module),
            self.batches(trainer, subject, "train", self.examples),
            reduce=lambda sums: trainer.strategy.reduce(sums, reduce_op="sum"),
        )

    def _measure_once(self, trainer: Trainer, module: LightningModule) -> dict[int, list[Measurement]]:
        found = super()._measure_once(trainer, module)
        if found:
            self._decide(trainer, module, {replica: value for replica, ((*_, value, _),) in found.items()})
        return found

    def _decide(self, trainer: Trainer, module: LightningModule, values: dict[int, float]) -> None:
        # One process decides for all, for they must all stop or none.
        holds = trainer.strategy.broadcast({replica: self.holds(value) for replica, value in values.items()})
        self._held = {replica: self._held.get(replica, 0) + 1 if now else 0 for replica, now in holds.items()}
        satisfied = [replica for replica, held in self._held.items() if held >= self.in_a_row]
        if not _may_stop(trainer):
            satisfied = []
        if isinstance(module, ReplicatedModule):
            moving = module.frozen.moving
            for replica in satisfied:
                if replica in moving:
                    module.stop_replica(replica, self.name)
            self._final = {replica: values[replica] for replica in module.frozen.stopped_by if replica in values}
        elif satisfied and all(rule.stopped_at is None for rule in rules_of(trainer)):
            self.stopped_at = trainer.global_step
            trainer.should_stop = True


def _may_stop(trainer: Trainer) -> bool:
    epochs = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    return epochs >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)


def rules_of(trainer: Trainer) -> list[StoppingRule]:
    """The stopping rules of a run."""
    return [callback for callback in trainer.callbacks if isinstance(callback, StoppingRule)]  # type: ignore[attr-defined]


def stopped_by(trainer: Trainer, module: LightningModule) -> str | None:
    """What has ended a run: the name of a rule, or ``limit``; ``None`` where it has no rule.

    Of a replicated run it is ``limit`` where a replica still moves, else the names of all rules that stopped one,
    such as ``StopAtLoss and StopAtMargin``, or ``diverged`` where all have diverged.
    """
    rules = rules_of(trainer)
    if not rules:
        return None
    if not isinstance(module, ReplicatedModule):
        return next((rule.name for rule in rules if rule.stopped_at is not None), LIMIT)
    if module.frozen.moving:
        return LIMIT
    return " and ".join(sorted(set(module.frozen.stopped_by.values()))) or "diverged"
