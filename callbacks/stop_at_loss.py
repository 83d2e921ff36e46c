"""Trains until the training loss is small."""

import math
from typing import Any

from pytorch_lightning import Trainer

from lnsgd.callbacks.per_example_loss import PerExampleLoss
from lnsgd.callbacks.stopping_rule import StoppingRule
from lnsgd.modules.replicated import Subject


class StopAtLoss(StoppingRule):
    """Stops where the mean training loss is at most ``loss``; logs it as ``stopping_loss/train``.

    The loss is that on the labels of the data, without label noise.

    Args:
        loss: The largest loss that is enough.
        examples: Of this many training examples, a fixed keyed subset; ``null`` for all.
        loss_function: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``. Other
            callbacks call it ``loss``.
        options: See `StoppingRule`; without ``max_overhead``.

    Raises:
        ValueError: a negative loss; on measuring, no loss function.
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
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "loss": self.loss}

    def value(self, trainer: Trainer, subject: Subject) -> float:
        """Mean loss."""
        return self.performance(trainer, subject, self.loss_function).loss

    def holds(self, value: float) -> bool:
        """Whether it is at most ``loss``."""
        return value <= self.loss
