"""Trains until most training examples are classified by a wide margin."""

import math
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.measure import share_of
from lnsgd.callbacks.stopping_rule import StoppingRule
from lnsgd.modules.replicated import Subject


class StopAtMargin(StoppingRule):
    """Stops where a fraction of the training examples has a margin, see `lnsgd.measures.margins`.

    Logs the fraction of the examples with at least that margin as ``stopping_margin_fraction/train``. The defaults
    are those of Nagarajan & Kolter (2019), § 3.

    Args:
        margin: The margin that is asked for.
        fraction: Of the examples, above 0 and at most 1.
        examples: Of this many training examples, a fixed keyed subset; ``null`` for all.
        options: See `StoppingRule`; without ``max_overhead``.

    Raises:
        ValueError: a margin that is no finite number; another fraction; on measuring, labels that are no classes.
    """

    headline = ("stopping_margin_fraction", "margin_fraction")

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

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "margin": self.margin, "fraction": self.fraction}

    def value(self, trainer: Trainer, subject: Subject) -> float:
        """Fraction of the examples with the margin."""
        batches = self.batches(trainer, subject, "train", self.examples)
        return measures.margins(subject.module, batches, share=share_of(trainer)).fraction(self.margin)

    def holds(self, value: float) -> bool:
        """Whether it is large enough."""
        return value >= self.fraction
