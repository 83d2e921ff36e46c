"""Logs loss and error at steps, where Lightning's validation loop knows epochs only."""

import math
from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback, Split, measurement_batches, module_loss
from lnsgd.callbacks.measurements import Measurement
from lnsgd.losses import Loss
from lnsgd.modules.replicated import Subject


class Performance(MeasureCallback):
    """Logs ``loss/<split>`` and, for class labels, ``error/<split>`` on clean labels, see `lnsgd.measures.performance`.

    Args:
        splits: On which data.
        examples: On this many examples of each split, a fixed keyed subset; ``null`` for all.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        schedule: See `MeasureCallback`.

    Raises:
        ValueError: on measuring, no loss.
    """

    headline = ("loss", "loss")

    def __init__(
        self,
        splits: Sequence[Split] = ("train", "val"),
        examples: int | None = 10_000,
        loss: Loss | None = None,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
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
            self.loss or module_loss(subject.module),
            measurement_batches(trainer, subject, split, self.examples),
            reduce=lambda sums: trainer.strategy.reduce(sums, reduce_op="sum"),
        )
        loss = Measurement("loss", split, "", found.loss)
        return [loss] if math.isnan(found.error) else [loss, Measurement("error", split, "", found.error)]
