"""What all measuring callbacks share: when they run, and where their numbers go."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from pytorch_lightning import Callback, LightningModule, Trainer

from lnsgd.callbacks.measurements import Measurement, group_scalars, scalars, tabulate, write_table
from lnsgd.callbacks.overhead import Overhead
from lnsgd.loggers import log_scalars, send_scalars
from lnsgd.measures import Share
from lnsgd.models import MLP
from lnsgd.modules.replicated import ReplicatedModule, Subject
from lnsgd.replicas import groups
from lnsgd.schedules import Schedule, at, every, log_spaced


class MeasureCallback(Callback):
    """Base of the measuring callbacks. A subclass says what is measured: `measure`.

    Measures before the first step, at its schedule, and at the end of training. In a replicated run
    every replica is measured; loggers get mean and standard deviation over those that differ in
    nothing but the seed.

    Args:
        every_n_epochs: At the end of every n-th epoch; 1 where no schedule is given.
        every_n_steps: In place of that, after every n-th step.
        log_spaced: In place of that, this many times per decade of steps.
        at_steps: In place of that, after these steps.
        max_overhead: Skip what is due while all measurements of this callback so far took more than this part of
            the training time so far; the first and the last are always taken. ``null`` for no limit.

    Raises:
        ValueError: more than one schedule, or one below 1; an overhead that is not positive.

    Attributes:
        headline: The measure shown in the progress bar, the first of that name, and its name there.
    """

    headline: ClassVar[tuple[str, str]]

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        log_spaced: int | None = None,
        at_steps: Sequence[int] | None = None,
        max_overhead: float | None = None,
    ) -> None:
        self._schedule: dict[str, Any] = {
            "every_n_epochs": every_n_epochs,
            "every_n_steps": every_n_steps,
            "log_spaced": log_spaced,
            "at_steps": at_steps,
        }
        self._epoch_due, self._step_due = _due(self._schedule)
        self._measured_at: int | None = None
        self._state_key: str | None = None
        self._overhead = Overhead(type(self).__name__, max_overhead)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class in the same Trainer."""
        return self._schedule

    @property
    def state_key(self) -> str:
        """Name of this callback's state in a checkpoint."""
        if self._state_key is None:  # Lightning asks at every hook of every batch
            self._state_key = self._generate_state_key(**self.state_identity)
        return self._state_key

    @property
    def state_identity(self) -> dict[str, Any]:
        """What must be the same for a callback to take the state of one in a checkpoint; by default its identity."""
        return self.identity

    @abstractmethod
    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """What is measured now, of one network. Runs on all processes and gives the same numbers on each."""

    def next_stop(self, step: int) -> int | None:
        """The next step after which this callback must be called, for runs that take many at once."""
        return self._step_due.next_after(step) if self._step_due else None

    def due_after_epoch(self, trainer: Trainer) -> bool:
        """Whether this epoch is followed by a measurement, if that is affordable."""
        return _is_last(trainer) or bool(self._epoch_due and self._epoch_due(trainer.current_epoch + 1))

    def state_dict(self) -> dict[str, Any]:
        """The step of the last measurement, so that a resumed run does not repeat it."""
        return {"measured_at": self._measured_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the step of the last measurement back."""
        self._measured_at = state_dict["measured_at"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes ``measures.parquet``: what a checkpoint follows from must not be lost."""
        write_table(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes ``measures.parquet``."""
        write_table(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the initial network."""
        self._overhead.start()
        if trainer.global_step == 0:
            self._measure_once(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Measures where the schedule in steps says so."""
        if self._step_due and self._step_due(trainer.global_step):
            self._measure_if_affordable(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures where the schedule in epochs says so, and after the last epoch."""
        if _is_last(trainer):
            self._measure_once(trainer, pl_module)
        elif self.due_after_epoch(trainer):
            self._measure_if_affordable(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the final network where training was stopped early."""
        if self._measured_at != trainer.global_step:
            found = self._measure_all(trainer, pl_module)
            epoch = max(trainer.current_epoch - 1, 0)  # the counter has moved on
            send_scalars(trainer, _scalars(pl_module, found), trainer.global_step, epoch)
            tabulate(trainer, found, epoch)
        write_table(trainer)

    def _measure_if_affordable(self, trainer: Trainer, module: LightningModule) -> None:
        # The clock of one process decides for all, for they must all measure or none.
        if trainer.strategy.broadcast(self._overhead.affordable()):
            self._measure_once(trainer, module)

    def _measure_once(self, trainer: Trainer, module: LightningModule) -> dict[int, list[Measurement]]:
        """Measurements by replica; none where this step was measured already."""
        if self._measured_at == trainer.global_step:
            return {}
        found = self._measure_all(trainer, module)
        measure, shown = self.headline
        headline = [next(m.value for m in measured if m.measure == measure) for measured in found.values()]
        log_scalars(module, _scalars(module, found), {shown: fmean(headline)} if headline else {})
        tabulate(trainer, found, trainer.current_epoch)
        self._measured_at = trainer.global_step
        return found

    def _measure_all(self, trainer: Trainer, module: LightningModule) -> dict[int, list[Measurement]]:
        """Measurements by replica."""
        with self._overhead.measuring():
            return {subject.replica: self.measure(trainer, subject) for subject in subjects(trainer, module)}


def _is_last(trainer: Trainer) -> bool:
    return trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps


def subjects(trainer: Trainer, module: LightningModule) -> Iterable[Subject]:
    """The networks that are trained: the replicas of a replicated run that have not diverged, else one."""
    if isinstance(module, ReplicatedModule):
        return module.subjects()
    return [Subject(module, trainer.datamodule)]  # type: ignore[attr-defined]


def network(module: LightningModule) -> LightningModule:
    """The module whose structure all measured networks have."""
    return module.cell if isinstance(module, ReplicatedModule) else module


def mlp_of(subject: Subject) -> MLP:
    """The network of a module, its ``net``, for measures that are made for one kind.

    Raises:
        ValueError: it is no `MLP`.
    """
    net = getattr(subject.module, "net", subject.module)
    if not isinstance(net, MLP):
        raise ValueError(
            f"this measure is for an lnsgd.models.MLP, not for a {type(net).__name__}; remove its callback"
        )
    return net


def _scalars(module: LightningModule, found: Mapping[int, Sequence[Measurement]]) -> dict[str, float]:
    if isinstance(module, ReplicatedModule):
        return group_scalars(found, groups(module.replicas))
    return scalars(found[0])


_IN_STEPS: dict[str, Callable[[Any], Schedule]] = {"every_n_steps": every, "log_spaced": log_spaced, "at_steps": at}


def _due(settings: Mapping[str, Any]) -> tuple[Schedule | None, Schedule | None]:
    """The schedule in epochs or the one in steps, and ``None`` for the other."""
    given = {name: value for name, value in settings.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(f'{name} = {value}' for name, value in given.items())}: give one schedule")
    name, value = next(iter(given.items()), ("every_n_epochs", 1))
    return (every(value), None) if name == "every_n_epochs" else (None, _IN_STEPS[name](value))


def share_of(trainer: Trainer) -> Share:
    """Which part of the data this process has, and how sums go over all of them."""
    return Share(trainer.global_rank, trainer.world_size, lambda sums: trainer.strategy.reduce(sums, reduce_op="sum"))
