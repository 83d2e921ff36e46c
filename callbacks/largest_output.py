"""Logs how far outputs are from zero."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class LargestOutput(DataCallback):
    """Logs ``largest_output/<split>``, see `lnsgd.measures.largest_output`.

    Args:
        splits: On which data.
        examples: On this many examples of each split, a fixed keyed subset; ``null`` for all.
        options: Data, layout of batches and schedule, see `DataCallback`.
    """

    headline = ("largest_output", "output")

    def __init__(
        self, splits: Sequence[Split] = ("train", "val"), examples: int | None = 10_000, **options: Any
    ) -> None:
        super().__init__(**options)
        self.splits = splits
        self.examples = examples

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "splits": self.splits, "examples": self.examples}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """One number on each split."""
        return [Measurement("largest_output", split, "", self._on(trainer, subject, split)) for split in self.splits]

    def _on(self, trainer: Trainer, subject: Subject, split: Split) -> float:
        return measures.largest_output(
            subject.module,
            self.batches(trainer, subject, split, self.examples),
            reduce=lambda largest: trainer.strategy.reduce(largest, reduce_op="max"),
        )
