"""Callbacks that measure on a schedule, and where their numbers go."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, ClassVar, Literal

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lnsgd import compat
from lnsgd.callbacks.base.measuring import MeasuringCallback, WithData, subjects_of
from lnsgd.callbacks.base.overhead import Overhead
from lnsgd.callbacks.base.pictures import send_distributions, takes_distributions
from lnsgd.loggers import send_scalars, show_scalars
from lnsgd.measures.weights import uninitialized
from lnsgd.measuring import AVERAGED, TRAINED, InitialWeights, Measurement, leaf_names, scalars
from lnsgd.replicas import networks_of
from lnsgd.schedules import Schedule, at, every, log_spaced


class MeasureCallback(MeasuringCallback):
    """Base of the callbacks that measure on a schedule. A subclass defines ``measure``.

    Measures before the first step, at its schedule, and at the end of training. Steps are those of
    ``trainer.global_step``, which counts the steps of all optimizers; if a batch takes several steps and passes one
    that is due, the callback measures after this batch. In a replicated run every replica is measured; loggers get the
    mean and the standard deviation over the replicas that differ only in the seed.

    A callback that ``needs_init`` keeps the initial weights θ₀ of every replica, taken before the first step, in every
    checkpoint, so that a resumed run measures from the same point. A weight that joins the network later counts from
    the value with which it joined. A network with lazy modules has no weights before its first batch, and is not
    measured then.

    It measures the weights that are trained, also where a ``WeightAveraging`` of Lightning, such as
    ``EMAWeightAveraging``, validates averages of them; with ``averaged`` it measures those too, at the same steps.
    Averages that replace the weights when training ends, as those of ``StochasticWeightAveraging`` do, are measured
    last. Numbers of averaged weights are named ``averaged/…`` in loggers, and have ``averaged`` in the column
    ``which_weights`` of ``measures.parquet``.

    With ``Trainer(fast_dev_run=True)`` it measures and writes nothing.

    Args:
        every_n_epochs: Measure at the end of every n-th epoch; 1 if no schedule is given.
        every_n_steps: Measure after every n-th step instead.
        log_spaced: Measure this many times per decade of steps instead.
        at_steps: Measure after these steps instead.
        max_overhead: Skip a measurement that is due while all measurements of this callback so far took more than this
            fraction of the training time so far; the first and the last are always taken. ``null`` for no limit;
            ``auto`` for no limit where a schedule is given, which is kept, and ``default_overhead`` where none is.
        averaged: Measure the averaged weights of Lightning's ``WeightAveraging`` too, see below.

    Raises:
        ValueError: more than one schedule, or one below 1; an overhead that is not positive; in training, ``averaged``
            without averaging; on resume, a checkpoint without θ₀, if it is needed.

    Attributes:
        default_overhead: Limit of ``max_overhead: auto`` where no schedule is given.
    """

    default_overhead: ClassVar[float | None] = None

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        log_spaced: int | None = None,
        at_steps: Sequence[int] | None = None,
        max_overhead: float | Literal["auto"] | None = None,
        averaged: bool | None = None,
    ) -> None:
        super().__init__()
        self._averaged = bool(averaged)
        self._schedule: dict[str, Any] = {
            "every_n_epochs": every_n_epochs,
            "every_n_steps": every_n_steps,
            "log_spaced": log_spaced,
            "at_steps": at_steps,
        }
        self._epoch_due, self._step_due = _due(self._schedule)
        self._asked_at = -1  # the step at which the schedule in steps was asked last
        self._measured_at: int | None = None
        self._init: InitialWeights | None = None
        self._weights_may_join = False
        self._state_key: str | None = None
        self._overhead = self._limited(max_overhead)

    def _limited(self, max_overhead: float | Literal["auto"] | None) -> Overhead:
        if max_overhead != "auto":
            return Overhead(type(self).__name__, max_overhead)
        if any(value is not None for value in self._schedule.values()):
            return Overhead(type(self).__name__, None, suggested=self.default_overhead)
        return Overhead(type(self).__name__, self.default_overhead)

    @property
    def identity(self) -> dict[str, Any]:
        """Schedule, data and settings: what tells this callback from another one of its class in the same Trainer."""
        return {**self._schedule, **self.source.identity, **super().identity}

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint: a run resumed with another schedule must find θ₀ again."""
        if self._state_key is None:  # Lightning asks at every hook of every batch
            self._state_key = compat.state_key(self, super().identity if self.needs_init else self.identity)
        return self._state_key

    def next_stop(self, step: int) -> int | None:
        """Return the next step after which this callback must be called, for runs that take many steps at once."""
        return self._step_due.next_after(step) if self._step_due else None

    def is_due_after_epoch(self, trainer: Trainer) -> bool:
        """Return whether this epoch is followed by a measurement, if that is affordable."""
        if self.which_weights(trainer, trainer.lightning_module).are_between:
            return False
        return _is_last(trainer) or bool(self._epoch_due and self._epoch_due(trainer.current_epoch + 1))

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last measurement, so that a resumed run does not repeat it, and θ₀ if it is needed."""
        init = {"init": self._init and self._init.of_replica} if self.needs_init else {}
        return {"measured_at": self._measured_at, **init}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the step of the last measurement, and θ₀ if it is needed."""
        self._measured_at = state_dict["measured_at"]
        if self.needs_init and state_dict["init"] is not None:
            self._init = InitialWeights(state_dict["init"])

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take θ₀ from the state of any callback: it is the same for all, also if this one had other settings."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if self.needs_init:
            self._init = InitialWeights.in_checkpoint(checkpoint)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write ``measures.parquet``: a run resumed from the checkpoint does not measure these numbers again."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        self.shared(trainer).write_table()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write ``measures.parquet``."""
        self.shared(trainer).write_table()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep θ₀ if it is needed, and measure the initial network."""
        which = self.which_weights(trainer, pl_module)
        if self._averaged:
            which.check_averaged(type(self).__name__)
        which.announce()
        if self.needs_init:
            self._keep_init(trainer, pl_module)
        self._overhead.start()
        self._asked_at = trainer.global_step
        if trainer.global_step == 0 and not self._is_lazy(pl_module):
            self._measure_once(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for new weights before the first step of the epoch: other callbacks add them at this moment."""
        self._weights_may_join = self.needs_init and not networks_of(pl_module).is_replicated

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the values of weights that have joined the network, before they are first trained."""
        if self._weights_may_join:
            assert self._init is not None
            self._init.add(subjects_of(trainer, pl_module))
            self._weights_may_join = bool(uninitialized(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Measure if a step was reached or passed that is due by the schedule in steps."""
        if self._step_due is None:
            return
        before, self._asked_at = self._asked_at, trainer.global_step
        is_due = self._step_due.is_passed(before, trainer.global_step)
        if is_due and not self.which_weights(trainer, pl_module).are_between:
            self._measure_if_affordable(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure if it is due by the schedule in epochs, and after the last epoch."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.which_weights(trainer, pl_module).are_between:
            return
        if _is_last(trainer):
            self._measure_once(trainer, pl_module)
        elif self.is_due_after_epoch(trainer):
            self._measure_if_affordable(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final network if training was stopped early, and then what has replaced its weights."""
        which, found = self.which_weights(trainer, pl_module), {}
        if self._measured_at != trainer.global_step:
            with which.trained():
                found = self._measure_all(trainer, pl_module)
        with which.final() as weights:
            if weights != TRAINED:
                found = _joined(found, self._measure_weights(trainer, pl_module, weights))
        if found:
            self._send(trainer, pl_module, found, max(trainer.current_epoch - 1, 0))  # the counter has moved on
        self._overhead.report_skipped()
        self.shared(trainer).write_table()

    def _keep_init(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.global_step == 0:
            self._init = InitialWeights()
            self._init.add(subjects_of(trainer, module))
        elif self._init is None:
            raise ValueError(
                f"{type(self).__name__}: the checkpoint holds no initial weights; it was written by a run without this "
                "callback: start a new run, or resume without it"
            )
        else:
            # A frozen weight that an earlier version did not keep has its initial value still.
            self._init.add(subjects_of(trainer, module), frozen_only=True)
            if missing := self._init.missing(subjects_of(trainer, module)):
                raise ValueError(
                    f"{type(self).__name__}: the initial weights of the checkpoint have no tensor {missing[0]!r}; they "
                    "belong to another model: resume with the model of the checkpoint, or start a new run"
                )

    def _is_lazy(self, module: LightningModule) -> bool:
        """Return whether the network has weights that only its first batch makes; log a message if it has."""
        waiting = uninitialized(networks_of(module).template)
        if waiting:
            rank_zero_info(
                f"{type(self).__name__}: the network is not measured before its first step, because {waiting[0]} of a "
                "lazy module has no value yet; pass a batch through the network before training to measure it then"
            )
        return bool(waiting)

    def _measure_if_affordable(self, trainer: Trainer, module: LightningModule) -> None:
        # The clock of one process decides for all, for they must all measure or none.
        if trainer.strategy.broadcast(self._overhead.is_affordable()):
            self._measure_once(trainer, module)

    def _measure_once(self, trainer: Trainer, module: LightningModule) -> dict[int, list[Measurement]]:
        """Return the measurements by replica; nothing if this step was measured already."""
        if self._measured_at == trainer.global_step:
            return {}
        found = self._measure_all(trainer, module)
        self._send(trainer, module, found, trainer.current_epoch)
        self._measured_at = trainer.global_step
        return found

    def _send(
        self, trainer: Trainer, module: LightningModule, found: Mapping[int, Sequence[Measurement]], epoch: int
    ) -> None:
        """Send measurements by replica to loggers, callbacks, the progress bar and ``measures.parquet``."""
        values, (_, shown), headline = _summary(module, found), self.headline, self._headlines(found)
        show_scalars(module, values, {shown: fmean(headline)} if headline else {})
        send_scalars(trainer, values, trainer.global_step, epoch, _leaf_names(module, found))
        self.context(trainer).tabulate(found, epoch)

    def _headlines(self, found: Mapping[int, Sequence[Measurement]]) -> list[float]:
        """Return the number of trained weights for the progress bar, of each replica that was measured.

        Raises:
            ValueError: there are measurements, and it is not among them.
        """
        values = []
        trained = ([one for one in measured if one.which_weights == TRAINED] for measured in found.values())
        for measured in filter(None, trained):
            of_headline = [one.value for one in measured if one.measure == self.headline[0]]
            if not of_headline:
                raise ValueError(
                    f"{type(self).__name__}: headline = {self.headline!r} is for a measure {self.headline[0]!r}, and "
                    f"those taken are {', '.join(dict.fromkeys(one.measure for one in measured))}; name one of them"
                )
            values.append(of_headline[0])
        return values

    def _measure_all(self, trainer: Trainer, module: LightningModule) -> dict[int, list[Measurement]]:
        """Return the measurements by replica, of the trained weights and, if they are asked for, of their averages."""
        found = self._measure_weights(trainer, module, TRAINED)
        if self._averaged:
            with self.which_weights(trainer, module).averaged():
                found = _joined(found, self._measure_weights(trainer, module, AVERAGED))
        return found

    def _measure_weights(self, trainer: Trainer, module: LightningModule, weights: str) -> dict[int, list[Measurement]]:
        """Return the measurements by replica of the weights that the module holds; ``weights`` says which these are."""
        context, networks = self.context(trainer), networks_of(module)
        drawn = networks.representatives if takes_distributions(trainer) else []
        found = {}
        with self._overhead.measuring(trainer.global_step, context):
            for network in subjects_of(trainer, module):
                if self._init is not None and not networks.is_replicated:
                    self._note_late(self._init.add([network]), trainer.global_step)
                init = None if self._init is None else self._init.of_replica[network.replica]
                subject = replace(network, init=init, findings=context.findings(network.replica, weights))
                measured = self.take(subject, self.source, context)
                found[subject.replica] = [one._replace(which_weights=weights) for one in measured]
                if subject.replica in drawn:
                    distributions = self.take_distributions(subject, self.source, context)
                    if weights != TRAINED:
                        distributions = [one._replace(group=f"{weights}/{one.group}") for one in distributions]
                    send_distributions(trainer, networks.prefix(subject.replica), distributions)
        return found

    def _note_late(self, added: Sequence[str], step: int) -> None:
        if added:
            rank_zero_info(
                f"{type(self).__name__}: {', '.join(added)} joined the network within an epoch, so the values from "
                f"which they are measured are those at step {step}"
            )


class DataCallback(WithData, MeasureCallback):
    """Base of the callbacks that measure on data on a schedule."""


class LimitedCallback(DataCallback):
    """Base of the callbacks on data whose cost is limited to ``default_overhead`` unless a schedule is given.

    Args:
        max_overhead: See `MeasureCallback`.
        options: Data, layout of batches and schedule, see `DataCallback`.
    """

    default_overhead = 0.05

    def __init__(self, max_overhead: float | Literal["auto"] | None = "auto", **options: Any) -> None:
        super().__init__(max_overhead=max_overhead, **options)


def _is_last(trainer: Trainer) -> bool:
    return trainer.current_epoch + 1 == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step


def _joined(
    found: Mapping[int, list[Measurement]], more: Mapping[int, list[Measurement]]
) -> dict[int, list[Measurement]]:
    return {replica: [*found.get(replica, []), *more.get(replica, [])] for replica in [*found, *more]}


def _summary(module: LightningModule, found: Mapping[int, Sequence[Measurement]]) -> dict[str, float]:
    """Return the numbers that loggers get: of one network, or statistics over replicas that differ only in the seed."""
    networks = networks_of(module)
    if not networks.is_replicated:
        return scalars(found[0])
    by_name: dict[str, dict[int, float]] = {}
    for replica, measurements in found.items():
        for measurement in measurements:
            by_name.setdefault(measurement.name, {})[replica] = measurement.value
    named: dict[str, float] = {}
    for name, values in by_name.items():
        named |= networks.scalars(name, values)
    return named


def _leaf_names(module: LightningModule, found: Mapping[int, Sequence[Measurement]]) -> dict[str, str]:
    """Return the names of `_summary` for loggers that make folders of them; statistics over replicas need no others."""
    return {} if networks_of(module).is_replicated else leaf_names(found[0])


_IN_STEPS: dict[str, Callable[[Any], Schedule]] = {"every_n_steps": every, "log_spaced": log_spaced, "at_steps": at}


def _due(settings: Mapping[str, Any]) -> tuple[Schedule | None, Schedule | None]:
    """Return the schedule in epochs or the one in steps, and ``None`` for the other."""
    given = {name: value for name, value in settings.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(f'{name} = {value}' for name, value in given.items())}: give one schedule")
    name, value = next(iter(given.items()), ("every_n_epochs", 1))
    return (every(value), None) if name == "every_n_epochs" else (None, _IN_STEPS[name](value))
