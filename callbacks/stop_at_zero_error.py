"""Trains until every training example is classified correctly."""

import math
from typing import Any

from pytorch_lightning import Trainer

from lnsgd.callbacks.per_example_loss import PerExampleLoss
from lnsgd.callbacks.stopping_rule import StoppingRule
from lnsgd.modules.replicated import Subject


class StopAtZeroError(StoppingRule):
    """Stops where no training example is misclassified; logs the fraction that is as ``stopping_error/train``.

    Args:
        in_a_row: At how many measurements in a row, the one before the first step included; with the default
            schedule these are epochs.
        examples: Of this many training examples, a fixed keyed subset; ``null`` for all.
        loss: Per-example loss ``(outputs, labels) -> (B,)``, whose only use is to tell a network that has diverged; by
            default the module's ``loss``.
        options: See `StoppingRule`; without ``max_overhead``.

    Raises:
        ValueError: ``in_a_row`` below 1; on measuring, labels that are no classes, or no loss.
    """

    headline = ("stopping_error", "stopping_error")

    def __init__(
        self, in_a_row: int = 1, examples: int | None = None, loss: PerExampleLoss | None = None, **options: Any
    ) -> None:
        super().__init__(examples, in_a_row, **options)
        self.loss = loss

    def __str__(self) -> str:
        """Class and setting."""
        return f"StopAtZeroError(in_a_row={self.in_a_row})"

    def value(self, trainer: Trainer, subject: Subject) -> float:
        """Misclassified fraction; NaN where the loss is no finite number, because then the classes mean nothing."""
        found = self.performance(trainer, subject, self.loss)
        if math.isfinite(found.loss) and math.isnan(found.error):
            raise ValueError("StopAtZeroError needs class labels, and these are real numbers; use StopAtLoss")
        return found.error if math.isfinite(found.loss) else math.nan

    def holds(self, value: float) -> bool:
        """Whether it is zero."""
        return value == 0
