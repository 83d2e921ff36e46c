"""Sums over the examples of an epoch."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lnsgd.losses import predicted_classes

# Counting a small batch costs about as much as counting many.
_BATCHES_AT_ONCE = 32


class ClassificationTotals(Metric):
    """Mean loss, accuracy on clean labels and realized flip rate, from sums over examples and processes."""

    full_state_update = False
    loss: Tensor
    correct: Tensor
    flipped: Tensor
    examples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.add_state("loss", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        for count in ("correct", "flipped", "examples"):
            self.add_state(count, torch.tensor(0), dist_reduce_fx="sum")

    def add(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor | None = None) -> None:
        """`update`, put off until a few batches have come together: for a small network it is not free."""
        self._waiting.append((losses, outputs, labels, labels if targets is None else targets))
        if len(self._waiting) >= _BATCHES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Counts the batches that still wait."""
        if self._waiting:
            columns = [torch.cat(column) for column in zip(*self._waiting)]
            self._waiting.clear()
            self.update(*columns)

    def restart(self) -> None:
        """Forgets everything, also the batches that wait."""
        self._waiting.clear()
        self.reset()

    def update(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor) -> None:
        """Adds examples.

        Args:
            losses: Loss of each example, shape (B,).
            outputs: Network outputs (B, C) or (B, 1).
            labels: Clean labels (B,).
            targets: Hard targets (B,) trained on; where they differ from the labels, a label was flipped.
        """
        self.loss += losses.sum(dtype=torch.float64)  # the same however batches are grouped
        self.correct += (predicted_classes(outputs) == labels).sum()
        self.flipped += (targets != labels).sum()
        self.examples += len(labels)

    def compute(self) -> dict[str, float]:
        """``loss``, ``accuracy`` and ``flip_rate`` over all examples so far."""
        n = self.examples.item()
        sums = {"loss": self.loss, "accuracy": self.correct, "flip_rate": self.flipped}
        return {name: total.item() / n if n else float("nan") for name, total in sums.items()}
