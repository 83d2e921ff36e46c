"""Logs loss and error at steps, where Lightning's validation loop knows epochs only."""

import math
from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.callbacks.per_example_loss import PerExampleLoss, per_example_loss
from lnsgd.modules.replicated import Subject


class Performance(DataCallback):
    """Logs ``loss/<split>`` and, for class labels, ``error/<split>`` on clean labels, see `lnsgd.measures.performance`.

    Args:
        splits: On which data.
        examples: On this many examples of each split, a fixed keyed subset; ``null`` for all.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        options: Data, layout of batches and schedule, see `DataCallback`.

    Raises:
        ValueError: on measuring, no loss.
    """

    headline = ("loss", "loss")

    def __init__(
        self,
        splits: Sequence[Split] = ("train", "val"),
        examples: int | None = 10_000,
        loss: PerExampleLoss | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.splits = splits
        self.examples = examples
        self.loss = loss

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "splits": self.splits, "examples": self.examples, "loss": type(self.loss).__name__}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Loss and error on each split."""
        return [measurement for split in self.splits for measurement in self._on(trainer, subject, split)]

    def _on(self, trainer: Trainer, subject: Subject, split: Split) -> list[Measurement]:
        found = measures.performance(
            subject.module,
            per_example_loss(self.loss, subject.module),
            self.batches(trainer, subject, split, self.examples),
            reduce=lambda sums: trainer.strategy.reduce(sums, reduce_op="sum"),
        )
        loss = Measurement("loss", split, "", found.loss)
        return [loss] if math.isnan(found.error) else [loss, Measurement("error", split, "", found.error)]
