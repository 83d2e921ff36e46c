"""The base class of the stopping rules, which end training when a measured value is reached."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from pytorch_lightning import LightningModule, Trainer

from lnsgd import compat
from lnsgd.callbacks.base import DataCallback
from lnsgd.measures import LossAndError, performance
from lnsgd.measuring import Context, Measurement, PerExampleLoss, Source, Split, Subject
from lnsgd.records.replicas import LIMIT
from lnsgd.replicas import networks_of, steps_of_hidden_epochs
from lnsgd.schedules import every


class StoppingRule(DataCallback):
    """Base of the stopping rules. A subclass defines the measured `value` and when it is enough, `holds`.

    Measures training examples, with the labels of the data, at the schedule of `MeasureCallback`. At the first
    measurement at which the rule is satisfied an ordinary run ends. In a replicated run that replica stops: it keeps
    its weights, which all later measurements are of, and the run ends with the last running replica. Of several
    rules the first to be satisfied counts; before the Trainer's ``min_epochs`` and ``min_steps`` none does.

    Logs what it measures. ``finished.json`` and ``replicas.csv`` say which rule stopped a run or a replica, and
    ``limit`` if none did before the run ended; a line at the end of training reports it too.

    An epoch of a replicated run is one of its largest training set.

    Args:
        examples: Measure this many training examples, a fixed keyed subset; ``null`` for all.
        in_a_row: At how many measurements in a row it must hold, the one before the first step included.
        options: See `DataCallback`; without ``max_overhead``.

    Raises:
        ValueError: ``max_overhead``, ``averaged``; ``in_a_row`` below 1.

    Attributes:
        stopped_at: Step at which it has ended an ordinary run.
    """

    identified_by: ClassVar[tuple[str, ...]] = ("examples", "in_a_row")
    needs = frozenset(("outputs",))

    def __init__(self, examples: int | None = None, in_a_row: int = 1, **options: Any) -> None:
        if options.get("max_overhead", "auto") not in ("auto", None):  # a LightningCLI gives the default
            raise ValueError(
                f"{self.name}: max_overhead = {options['max_overhead']} would let the clock decide when a run "
                "ends; leave it out"
            )
        if options.get("averaged"):
            raise ValueError(
                f"{self.name}: averaged = True; a rule decides by the weights that are trained, so leave it out"
            )
        if in_a_row < 1:
            raise ValueError(f"{self.name}: in_a_row = {in_a_row}; give an integer >= 1")
        super().__init__(**options)
        self.examples = examples
        self.in_a_row = in_a_row
        self._reset()

    def _reset(self) -> None:
        self.stopped_at: int | None = None
        self._held: dict[int, int] = {}  # by replica: at how many measurements in a row, up to the last
        self._final: dict[int, float] = {}  # values of replicas that take no further step

    @property
    def name(self) -> str:
        """Name in the records."""
        return type(self).__name__

    @property
    def measured_splits(self) -> Sequence[Split]:
        """The training split."""
        return ["train"]

    @abstractmethod
    def value(self, subject: Subject, source: Source, context: Context) -> float:
        """Measure one network; returns the same number on all processes."""

    @abstractmethod
    def holds(self, value: float) -> bool:
        """Return whether a measured value is enough; never true for NaN."""

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last measurement, and for how long the rule has held."""
        return {**super().state_dict(), "stopped_at": self.stopped_at, "held": dict(self._held)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` has returned."""
        super().load_state_dict(state_dict)
        self.stopped_at, self._held = state_dict["stopped_at"], dict(state_dict["held"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the network; count epochs in steps if the whole run is one epoch of Lightning."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or not self._epoch_due:
            return
        if steps := steps_of_hidden_epochs(trainer.datamodule):  # type: ignore[attr-defined]
            assert isinstance(self._epoch_due, every)
            self._step_due, self._epoch_due = every(self._epoch_due.n * steps), None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the initial network; a run that had ended is not continued."""
        if trainer.ckpt_path is None and trainer.global_step == 0:
            self._reset()
        if self.stopped_at is not None:
            trainer.should_stop = True
        super().on_train_start(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print, once for all rules, which of them ended an ordinary run, or that the limit came first."""
        rules = rules_of(trainer)
        if trainer.interrupted or not trainer.is_global_zero or rules[0] is not self:
            return
        names, networks = " or ".join(map(str, rules)), networks_of(pl_module)
        if networks.is_replicated:
            if networks.running:
                many = f"{len(networks.running)} of {len(networks)} replicas"
                print(f"{many} reached the limit, step {trainer.global_step}, before {names}")
        elif ending := [rule for rule in rules if rule.stopped_at is not None]:
            print(f"{ending[0]} ended the run at step {ending[0].stopped_at}")
        else:
            print(f"The run reached its limit, step {trainer.global_step}, before {names}")

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Return the value; a replica that takes no further step keeps its own."""
        value = self._final.get(subject.replica)
        if value is None:
            value = self.value(subject, source, context)
        return [Measurement(self.headline[0], "train", "", value)]

    def performance(
        self, loss: PerExampleLoss | None, subject: Subject, source: Source, context: Context
    ) -> LossAndError:
        """Return loss, by default the module's own, and error on the training examples."""
        data = source.batches(subject, "train", self.examples, context)
        return performance(subject.module, subject.loss(loss), data, reduce=context.share.reduce)

    def _measure_once(self, trainer: Trainer, module: LightningModule) -> dict[int, list[Measurement]]:
        found = super()._measure_once(trainer, module)
        if found:
            self._decide(trainer, module, {replica: measured.value for replica, (measured,) in found.items()})
        return found

    def _decide(self, trainer: Trainer, module: LightningModule, values: dict[int, float]) -> None:
        # One process decides for all, for they must all stop or none.
        holds = trainer.strategy.broadcast({replica: self.holds(value) for replica, value in values.items()})
        self._held = {replica: self._held.get(replica, 0) + 1 if now else 0 for replica, now in holds.items()}
        satisfied = [replica for replica, held in self._held.items() if held >= self.in_a_row]
        if not _may_stop(trainer):
            satisfied = []
        networks = networks_of(module)
        if networks.is_replicated:
            for replica in [replica for replica in networks.running if replica in satisfied]:
                networks.stop(replica, self.name)
            self._final = {replica: values[replica] for replica in networks.stopped_by if replica in values}
        elif satisfied and all(rule.stopped_at is None for rule in rules_of(trainer)):
            self.stopped_at = trainer.global_step
            networks.stop(0, self.name)


def _may_stop(trainer: Trainer) -> bool:
    epochs = compat.epochs_processed(trainer)
    return epochs >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)


def rules_of(trainer: Trainer) -> list[StoppingRule]:
    """Return the stopping rules of a run."""
    return [callback for callback in trainer.callbacks if isinstance(callback, StoppingRule)]  # type: ignore[attr-defined]


def stopped_by(trainer: Trainer, module: LightningModule) -> str | None:
    """Return what has ended a run: the name of a rule, or ``limit``; ``None`` if it has no rule.

    For a replicated run it is ``limit`` if a replica is still running, else the names of all rules that stopped one,
    such as ``StopAtLoss and StopAtMargin``, or ``diverged`` if all have diverged.
    """
    rules = rules_of(trainer)
    if not rules:
        return None
    networks = networks_of(module)
    if not networks.is_replicated:
        return next((rule.name for rule in rules if rule.stopped_at is not None), LIMIT)
    if networks.running:
        return LIMIT
    return " and ".join(sorted(set(networks.stopped_by.values()))) or "diverged"
