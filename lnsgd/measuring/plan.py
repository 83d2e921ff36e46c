"""Plans of measuring a network outside of a Trainer, once or repeatedly."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd import compat
from lnsgd.measures import OutputsFunction
from lnsgd.measuring.context import LoadedData, PlainContext, Split
from lnsgd.measuring.measurement import Measurement
from lnsgd.measuring.measurer import Measurer
from lnsgd.measuring.source import BatchLayout, Source
from lnsgd.measuring.subject import PerExampleLoss, Subject

# What `PlainPrecision` calls the formats that weights can have.
_PRECISIONS = {torch.float16: "16-true", torch.bfloat16: "bf16-true", torch.float64: "64-true"}


class MeasurementPlan:
    """Measurers of one network with their data, which can be taken whenever the network is to be measured.

    The network is left as it was: mode, buffers, gradients and the global random state. Measurers that look at the same
    activation sites on the same data share one forward pass. Under ``torch.distributed`` every process must take part,
    and each measures its share of the data.

    Args:
        network: The network. What ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel`` has wrapped is
            measured itself.
        loaders: DataLoaders by split (``train``, ``val``, ``test``), read as `lnsgd.measuring.Source` says.
        measurers: What is measured. A callback is a measurer too; one with data of its own keeps it.
        loss: Per-example loss ``(outputs, labels) -> (B,)`` for measurers that have none; by default the network's
            attribute ``loss``.
        init: Initial weights θ₀ by parameter name, for measurers that need them.
        batch: Function from a batch to inputs and labels, see `lnsgd.measuring.Source`.
        outputs: How the network is called, see `lnsgd.measures.outputs_of`.
        precision: Number format of the forward passes, see `lnsgd.measuring.PlainPrecision`; by default that of the
            weights.

    Raises:
        ValueError: a network without parameters, or one that a measurer cannot measure; missing initial weights; an
            unknown split.
    """

    def __init__(
        self,
        network: nn.Module,
        loaders: Mapping[Split, Any],
        measurers: Sequence[Measurer],
        *,
        loss: PerExampleLoss | None = None,
        init: Mapping[str, Tensor] | None = None,
        batch: BatchLayout | None = None,
        outputs: OutputsFunction | None = None,
        precision: str | None = None,
    ) -> None:
        self.network = unwrapped(network)
        self.loaders = loaders
        self.loss = loss
        self.init = init
        self.precision = precision
        given = Source(loaders, batch, outputs)
        own = [getattr(measurer, "source", Source()) for measurer in measurers]
        self.together = [
            (measurer, given if source == Source() else source) for measurer, source in zip(measurers, own)
        ]
        self._loaded = LoadedData()
        _first_parameter(self.network)
        for measurer in measurers:
            measurer.check(self.network)
            if measurer.needs_init and init is None:
                raise ValueError(f"{type(measurer).__name__} needs the initial weights θ₀; give init=")

    def take(self) -> list[Measurement]:
        """Measure the network as it is now, on the device on which its parameters are.

        Returns:
            The measurements, in the order of the measurers.

        Raises:
            ValueError: a network or data that a measurer cannot measure.
        """
        subject = Subject(self.network, init=self.init, default_loss=self.loss)
        context = self._context()
        with _outside_of_training():
            return [found for measurer, source in self.together for found in measurer.take(subject, source, context)]

    def _context(self) -> PlainContext:
        parameter = _first_parameter(self.network)
        precision = self.precision or _PRECISIONS.get(parameter.dtype, "32-true")
        context = PlainContext(self.loaders, parameter.device, precision, self.together)
        context.loaded = self._loaded  # what was read stays in memory for the next time
        return context


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network within wrappers that add nothing to what it computes.

    Args:
        network: A network, perhaps wrapped by ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel``.
    """
    while True:
        inner = compat.compiled_original(network)
        if inner is None and isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = network.module
        if inner is None:
            return network
        network = inner


@contextmanager
def _outside_of_training() -> Iterator[None]:
    """Undo what the training loop around a call may have switched on: autocast, or inference mode."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device in {"cpu", *(["cuda"] if torch.cuda.is_available() else [])}:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _first_parameter(network: nn.Module) -> nn.Parameter:
    parameter = next((p for p in network.parameters() if p.is_floating_point() or p.is_complex()), None)
    if parameter is None:
        raise ValueError(f"{type(network).__name__} has no parameters, so there is nothing to measure")
    return parameter
