"""Trains until every training example is classified correctly."""

import math
from typing import Any

from pytorch_lightning import Trainer

from lnsgd.callbacks.stopping_rule import StoppingRule, training_performance
from lnsgd.modules.replicated import Subject


class StopAtZeroError(StoppingRule):
    """Stops where no training example is misclassified; logs the fraction that is as ``stopping_error/train``.

    Args:
        in_a_row: At how many measurements in a row, the one before the first step included; with the default
            schedule these are epochs.
        examples: Of this many training examples, a fixed keyed subset; ``null`` for all.
        schedule: See `MeasureCallback`; without ``max_overhead``.

    Raises:
        ValueError: ``in_a_row`` below 1; on measuring, labels that are no classes, or a module without a loss.
    """

    headline = ("stopping_error", "stopping_error")

    def __init__(self, in_a_row: int = 1, examples: int | None = None, **schedule: Any) -> None:
        super().__init__(examples, in_a_row, **schedule)

    def __str__(self) -> str:
        """Class and setting."""
        return f"StopAtZeroError(in_a_row={self.in_a_row})"

    def value(self, trainer: Trainer, subject: Subject) -> float:
        """Misclassified fraction; NaN where the loss is no finite number, because then the classes mean nothing."""
        found = training_performance(trainer, subject, self.examples)
        if math.isfinite(found.loss) and math.isnan(found.error):
            raise ValueError("StopAtZeroError needs class labels, and these are real numbers; use StopAtLoss")
        return found.error if math.isfinite(found.loss) else math.nan

    def holds(self, value: float) -> bool:
        """Whether it is zero."""
        return value == 0
