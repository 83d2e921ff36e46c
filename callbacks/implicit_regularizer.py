"""Logs what label noise is believed to minimize."""

from math import nan
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measure import share_of
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class ImplicitRegularizer(DataCallback):
    """Logs ``implicit_regularizer/<split>``: (1/n)Σ‖∇h(x_i)‖², see `lnsgd.measures.implicit_regularizer`.

    It is exact, and costs one backward pass for every output of the network. The data is a fixed keyed subset. Of a
    network that has diverged it is NaN.

    Args:
        split: On which data.
        examples: Number of examples; ``null`` for the whole split.
        max_overhead: See `MeasureCallback`.
        options: Data, layout of batches and schedule, see `DataCallback`.

    Raises:
        ValueError: on measuring, no examples, or outputs that are not floating point.
    """

    headline = ("implicit_regularizer", "regularizer")

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        max_overhead: float | None = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(max_overhead=max_overhead, **options)
        self.split = split
        self.examples = examples

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "split": self.split, "examples": self.examples}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """One number."""
        data = self.batches(trainer, subject, self.split, self.examples)
        try:
            value = measures.implicit_regularizer(subject.module, data, share=share_of(trainer))
        except measures.NonFiniteError:
            value = nan
        return [Measurement("implicit_regularizer", self.split, "", value)]
