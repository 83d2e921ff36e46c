"""Logs how steep the loss is."""

from math import nan
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measure import share_of
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.callbacks.per_example_loss import PerExampleLoss, per_example_loss
from lnsgd.modules.replicated import Subject


class GradientNorm(DataCallback):
    """Logs ‖∇L‖₂ as ``gradient_norm/<split>`` and, per tensor, ``gradient_norm/<split>/<tensor>``.

    L is the mean loss on clean labels in eval mode, see `lnsgd.measures.gradient_norm`, over a fixed keyed subset. Of a
    network that has diverged the total is NaN.

    Args:
        split: On which data.
        examples: Number of examples; ``null`` for the whole split.
        per_tensor: Log each tensor's norm too.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        max_overhead: See `MeasureCallback`.
        options: Data, layout of batches and schedule, see `DataCallback`.

    Raises:
        ValueError: on measuring, no loss.
    """

    headline = ("gradient_norm", "gradient")

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        per_tensor: bool = True,
        loss: PerExampleLoss | None = None,
        max_overhead: float | None = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(max_overhead=max_overhead, **options)
        self.split = split
        self.examples = examples
        self.per_tensor = per_tensor
        self.loss = loss

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        mine = {"split": self.split, "examples": self.examples, "per_tensor": self.per_tensor}
        return {**super().identity, **mine, "loss": type(self.loss).__name__}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Total norm and that of each tensor."""
        try:
            norm = measures.gradient_norm(
                subject.module,
                per_example_loss(self.loss, subject.module),
                self.batches(trainer, subject, self.split, self.examples),
                share=share_of(trainer),
            )
        except measures.NonFiniteError:
            return [Measurement("gradient_norm", self.split, "", nan)]
        norms = {"": norm.total, **(norm.per_tensor if self.per_tensor else {})}
        return [Measurement("gradient_norm", self.split, layer, value) for layer, value in norms.items()]
