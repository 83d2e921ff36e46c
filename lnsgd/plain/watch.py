"""Measuring along a training loop of any kind."""

import logging
from collections.abc import Sequence
from operator import index
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import nn

from lnsgd import compat
from lnsgd.measures import OutputsFunction
from lnsgd.measuring import (
    BatchLayout,
    InitialWeights,
    Measurement,
    MeasurementPlan,
    Measurer,
    PerExampleLoss,
    Subject,
    measurers_named,
    unwrapped,
)
from lnsgd.plain.given import Init, initial_weights, loaders_by_split
from lnsgd.plain.record import WatchRecord
from lnsgd.schedules import Schedule
from lnsgd.schedules import every as every_n

if TYPE_CHECKING:
    import pandas as pd

# The settings of callbacks that say when they measure.
_SCHEDULES = ("every_n_epochs", "every_n_steps", "log_spaced", "at_steps")


class Watch:
    """Measure a network along a training loop, without changing the training in any bit.

    The network is measured when the watch is made, at the steps of the schedule, and when the watch is closed. After
    each step of the optimizer the loop says how many steps were taken:

        with Watch(net, loader, ["active_neurons"], every=100, out="runs/first") as watch:
            for n, (inputs, labels) in enumerate(loader, 1):
                ...
                watch.step(n)

    Under ``torch.distributed`` every process makes a watch and calls its methods; each measures its share of the data,
    and the first one writes.

    Args:
        network: Any module, with its initial weights θ₀, of which the watch keeps a copy if a measure needs it.
        loader: A DataLoader, which counts as that of the training split, or DataLoaders by split; see `lnsgd.measure`.
        measures: Names of measures and measurers, see `lnsgd.measure`.
        every: Measure after every n-th step, or at the steps of a schedule of `lnsgd.schedules`, such as
            ``log_spaced(5)`` or ``at([10, 1000])``. If a call passes a step that is due, the network is measured then.
        out: Folder for ``measures.parquet``, and for ``init.safetensors`` if a measure needs θ₀. If the folder has the
            table of another run, or another process is writing there, a fresh folder with a number is made beside it.
            By default nothing is written.
        start: Number of steps that were taken before.
        resume: Continue the table in ``out``, if there is one, and take θ₀ from there. The network is then not measured
            at the beginning, and rows of steps that are taken again are replaced.
        loss: Per-example loss for measures of the loss, see `lnsgd.measure`.
        init: Initial weights θ₀, if they are not those that the network has now, see `lnsgd.measure`.
        batch: Function from a batch to inputs and labels, see `lnsgd.measuring.Source`.
        outputs: How the network is called, see `lnsgd.measures.outputs_of`.
        precision: Number format of the forward passes, see `lnsgd.measure`.

    Attributes:
        folder: The folder that is written to; ``None`` without ``out``.
        latest: The measurements that were taken last.

    Raises:
        ValueError: an unknown measure or split; a network or data that a measure cannot be taken of; a callback with a
            schedule of its own; ``resume`` without ``out``, or without the θ₀ of the run; on a step, a number of steps
            that is lower than before.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> net = nn.Linear(2, 2)
        >>> with Watch(net, measures=["distance_from_init"], every=2) as watch:
        ...     for n in range(1, 4):
        ...         _ = net.bias.data.add_(1.0)
        ...         taken = watch.step(n)
        >>> total = watch.frame().query("layer == ''")
        >>> total["step"].tolist(), total["value"].round(2).tolist()
        ([0, 2, 3], [0.0, 2.83, 4.24])
    """

    def __init__(
        self,
        network: nn.Module,
        loader: Any = None,
        measures: str | Measurer | Sequence[str | Measurer] = (),
        *,
        every: int | Schedule,
        out: str | PathLike[str] | None = None,
        start: int = 0,
        resume: bool = False,
        loss: PerExampleLoss | None = None,
        init: Init | None = None,
        batch: BatchLayout | None = None,
        outputs: OutputsFunction | None = None,
        precision: str | None = None,
    ) -> None:
        if resume and out is None:
            raise ValueError("resume = True, but there is no folder to continue; give out=")
        self._schedule = every if isinstance(every, Schedule) else every_n(every)
        loaders = loaders_by_split(loader)
        measurers = [_without_schedule(measurer) for measurer in measurers_named(measures, list(loaders))]
        self._needs_init = any(measurer.needs_init for measurer in measurers)
        weights = initial_weights(init, network)
        self._initial: InitialWeights | None = None
        if weights is None and self._needs_init:
            self._initial = InitialWeights()
            self._initial.add([Subject(unwrapped(network))])
            weights = self._initial.of_replica[0]
        self._plan = MeasurementPlan(
            network, loaders, measurers, loss=loss, init=weights, batch=batch, outputs=outputs, precision=precision
        )
        self.latest: list[Measurement] = []
        self._step: int | None = start  # None if it is not known
        self._epoch = 0
        self._measured_at: int | None = None
        self._is_closed = False
        self._record = WatchRecord(None if out is None else Path(out), resume)
        if self._record.is_resumed:
            self._resume()
        else:
            self._keep_init()
            self._measure(start, 0)
        self._state_at_start = self._state_of_weights()

    @property
    def folder(self) -> Path | None:
        """The folder that is written to; ``None`` without ``out``."""
        return self._record.folder

    def step(self, n: int | None = None, epoch: int = 0) -> list[Measurement]:
        """Say how many steps the optimizer has taken, and measure if this is due.

        Args:
            n: Number of steps taken so far; by default one more than at the last call. A call with the same number as
                before does nothing.
            epoch: Number of the epoch, for the table.

        Returns:
            The measurements; an empty list if none were due.

        Raises:
            ValueError: the watch is closed; ``n`` is lower than before, is missing after a resume, or is 0 after a step
                was taken.
        """
        n = self._counted(n)
        before, self._step = n - 1 if self._step is None else self._step, n
        self._epoch = epoch
        return self._measure(n, epoch) if self._schedule.is_passed(before, n) else []

    def measure(self) -> list[Measurement]:
        """Measure now, at the step and the epoch of the last call of `step`.

        Returns:
            The measurements; an empty list if the network was measured at this step.

        Raises:
            ValueError: the watch is closed; after a resume, before the first call of `step`.
        """
        if self._step is not None and self._step == self._measured_at:
            return []
        return self._measure(self._counted(self._step), self._epoch)

    def close(self, final: bool = True) -> list[Measurement]:
        """Measure the final network if it was not measured at this step, and write the table.

        Args:
            final: Whether the network has the weights of the last step; if not, it is not measured.

        Returns:
            The measurements; an empty list if the network was measured before.
        """
        if self._is_closed:
            return []
        try:
            return self.measure() if final and self._step is not None else []
        finally:
            self._release()

    def frame(self) -> "pd.DataFrame":
        """Return all that was measured so far, with the columns of ``measures.parquet``."""
        return self._record.table()

    def __enter__(self) -> "Watch":
        """Return the watch, which is closed at the end of the context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the watch; after an error in the loop, write the table without a last measurement."""
        self.close(final=kind is None)

    def _resume(self) -> None:
        self._step = None
        if self._initial is not None:
            self._initial = InitialWeights({0: self._record.read_init()})
            self._plan.init = self._initial.of_replica[0]
            if missing := self._initial.missing([Subject(self._plan.network)]):
                raise ValueError(
                    f"lnsgd.Watch: the initial weights in {self.folder} have no tensor {missing[0]!r}; they belong to "
                    "another network: resume with the network of that run, or choose another folder by out="
                )

    def _counted(self, n: int | None) -> int:
        """Return the number of steps taken."""
        if self._is_closed:
            raise ValueError("this Watch is closed; make another one, or call step before close")
        if n is None:
            if self._step is None:
                raise ValueError("a resumed Watch does not know how many steps were taken before; call step(n)")
            return self._step + 1
        n = index(n)
        if n < (self._step or 0):
            raise ValueError(
                f"step({n}) after step({self._step}); n is the number of steps taken so far, which does not fall: to "
                "continue from an earlier step, make another Watch with resume=True"
            )
        if n == 0 and self._state_of_weights() != self._state_at_start:
            raise ValueError(
                "step(0), but the weights have changed since the Watch was made; n is the number of steps taken so "
                "far, so call step(1) after the first step of the optimizer"
            )
        return n

    def _state_of_weights(self) -> int:
        """Return a number that grows when weights are changed in place, as optimizers do."""
        return sum(compat.tensor_version(parameter) for parameter in self._plan.network.parameters())

    def _measure(self, n: int, epoch: int) -> list[Measurement]:
        if self._initial is not None and (late := self._initial.add([Subject(self._plan.network)])):
            logging.getLogger("lnsgd").warning(
                "lnsgd.Watch: %s joined the network, so the values from which they are measured are those at step %d",
                ", ".join(late),
                n,
            )
            self._keep_init()
        self.latest = self._plan.take()
        self._record.add(n, epoch, self.latest)
        self._measured_at = n
        return self.latest

    def _keep_init(self) -> None:
        if self._needs_init:
            self._record.write_init(self._plan.init or {})

    def _release(self) -> None:
        self._is_closed = True
        self._record.finish()


def _without_schedule(measurer: Measurer) -> Measurer:
    given = {name: value for name, value in measurer.identity.items() if name in _SCHEDULES and value is not None}
    if given:
        name, value = next(iter(given.items()))
        raise ValueError(
            f"{type(measurer).__name__} has {name} = {value}, but a Watch has one schedule for all measures; leave it "
            "out and give every=, or make another Watch"
        )
    return measurer
