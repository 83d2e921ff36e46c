"""Logs by how much examples are classified correctly."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measure import share_of
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class Margin(DataCallback):
    """Logs ``margin_fraction/<split>`` and ``margin_median/<split>``, see `lnsgd.measures.margins`.

    Args:
        margin: Of at least which margin the fraction is.
        splits: On which data.
        examples: On this many examples of each split, a fixed keyed subset; ``null`` for all.
        options: Data, layout of batches and schedule, see `DataCallback`.

    Raises:
        ValueError: on measuring, labels that are no classes.
    """

    headline = ("margin_median", "margin")

    def __init__(
        self,
        margin: float = 10.0,
        splits: Sequence[Split] = ("train", "val"),
        examples: int | None = 10_000,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.margin = margin
        self.splits = splits
        self.examples = examples

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "margin": self.margin, "splits": self.splits, "examples": self.examples}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Both on each split."""
        found = []
        for split in self.splits:
            batches = self.batches(trainer, subject, split, self.examples)
            margins = measures.margins(subject.module, batches, share=share_of(trainer))
            found.append(Measurement("margin_fraction", split, "", margins.fraction(self.margin)))
            found.append(Measurement("margin_median", split, "", margins.quantile(0.5)))
        return found
