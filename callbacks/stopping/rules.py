"""Stopping rules: train until the loss is small, no example is misclassified, or most have a wide margin."""

import math
from typing import Any

from lnsgd import measures
from lnsgd.callbacks.stopping.rule import StoppingRule
from lnsgd.measuring import Context, PerExampleLoss, Source, Subject


class StopAtLoss(StoppingRule):
    """Stop when the mean training loss is at most ``loss``; log it as ``stopping_loss/train``.

    The loss is that on the labels of the data, without label noise.

    Args:
        loss: The largest loss that is enough.
        examples: Measure this many training examples, a fixed keyed subset; ``null`` for all.
        loss_function: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``. Other
            callbacks call it ``loss``.
        options: See `StoppingRule`; without ``max_overhead``.

    Raises:
        ValueError: a negative loss; on measuring, there is no loss function.
    """

    headline = ("stopping_loss", "stopping_loss")

    def __init__(
        self, loss: float, examples: int | None = None, loss_function: PerExampleLoss | None = None, **options: Any
    ) -> None:
        super().__init__(examples, **options)
        if not 0 <= loss < math.inf:
            raise ValueError(f"StopAtLoss: loss = {loss}; give a number >= 0")
        self.loss = loss
        self.loss_function = loss_function

    def __str__(self) -> str:
        """Class and setting."""
        return f"StopAtLoss(loss={self.loss:g})"

    @property
    def identity(self) -> dict[str, Any]:
        """Schedule, data and settings, see `MeasureCallback`."""
        return {**super().identity, "loss": self.loss}

    def value(self, subject: Subject, source: Source, context: Context) -> float:
        """Measure the mean loss."""
        return self.performance(self.loss_function, subject, source, context).loss

    def holds(self, value: float) -> bool:
        """Return whether the loss is at most ``loss``."""
        return value <= self.loss


class StopAtMargin(StoppingRule):
    """Stop when a fraction of the training examples has a margin, see `lnsgd.measures.margins`.

    Logs the fraction of the examples with at least that margin as ``stopping_margin_fraction/train``. The defaults
    are those of Nagarajan & Kolter (2019), § 3.

    Args:
        margin: The margin that is asked for.
        fraction: Fraction of the examples that must have it, above 0 and at most 1.
        examples: Measure this many training examples, a fixed keyed subset; ``null`` for all.
        options: See `StoppingRule`; without ``max_overhead``.

    Raises:
        ValueError: a margin that is not a finite number; a fraction out of range; on measuring, labels that are not
            classes.
    """

    headline = ("stopping_margin_fraction", "margin_fraction")
    identified_by = (*StoppingRule.identified_by, "margin", "fraction")

    def __init__(
        self, margin: float = 10.0, fraction: float = 0.99, examples: int | None = None, **options: Any
    ) -> None:
        super().__init__(examples, **options)
        if not math.isfinite(margin):
            raise ValueError(f"StopAtMargin: margin = {margin}; give a finite number")
        if not 0 < fraction <= 1:
            raise ValueError(f"StopAtMargin: fraction = {fraction}; give a number in (0, 1]")
        self.margin = margin
        self.fraction = fraction

    def __str__(self) -> str:
        """Class and settings."""
        return f"StopAtMargin(margin={self.margin:g}, fraction={self.fraction:g})"

    def value(self, subject: Subject, source: Source, context: Context) -> float:
        """Measure the fraction of the examples with the margin."""
        batches = source.batches(subject, "train", self.examples, context)
        return measures.margins(subject.module, batches, share=context.share).fraction(self.margin)

    def holds(self, value: float) -> bool:
        """Return whether the fraction is large enough."""
        return value >= self.fraction


class StopAtZeroError(StoppingRule):
    """Stop when no training example is misclassified; log the fraction that is as ``stopping_error/train``.

    Args:
        in_a_row: At how many measurements in a row it must hold, the one before the first step included; with the
            default schedule these are epochs.
        examples: Measure this many training examples, a fixed keyed subset; ``null`` for all.
        loss: Per-example loss ``(outputs, labels) -> (B,)``, whose only use is to recognize a network that has
            diverged; by default the module's ``loss``.
        options: See `StoppingRule`; without ``max_overhead``.

    Raises:
        ValueError: ``in_a_row`` below 1; on measuring, labels that are not classes, or there is no loss.
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

    def value(self, subject: Subject, source: Source, context: Context) -> float:
        """Measure the misclassified fraction; NaN if the loss is not finite, because then the classes mean nothing."""
        found = self.performance(self.loss, subject, source, context)
        if math.isfinite(found.loss) and math.isnan(found.error):
            raise ValueError("StopAtZeroError needs class labels, but the labels are real numbers; use StopAtLoss")
        return found.error if math.isfinite(found.loss) else math.nan

    def holds(self, value: float) -> bool:
        """Return whether no example is misclassified."""
        return value == 0
