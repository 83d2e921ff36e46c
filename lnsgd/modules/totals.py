"""Sums over the examples of an epoch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lnsgd.losses import predicted_classes

# Counting a small batch costs about as much as counting many.
_BATCHES_AT_ONCE = 32


class LossTotals(Metric):
    """Mean loss, from sums over examples and processes."""

    full_state_update = False
    loss: Tensor
    examples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[Tensor, ...]] = []
        self.add_state("loss", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("examples", torch.tensor(0), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        """Follows a module to other devices, not to other types: in half precision a sum would soon stop growing."""
        return super()._apply(lambda sums: sums.to(fn(sums.new_empty(0)).device), exclude_state)

    def add(self, *columns: Tensor) -> None:
        """`update`, put off until a few batches have come together: for a small network it is not free."""
        self._waiting.append(columns)
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

    def update(self, losses: Tensor) -> None:
        """Adds examples, given the loss of each, shape (B,)."""
        # One after the other: a checkpoint changes how batches are grouped, and must not change the sum.
        self.loss = torch.cat([self.loss.view(1), losses.double()]).cumsum(0)[-1].clone()
        self.examples += len(losses)

    def compute(self) -> dict[str, float]:
        """``loss`` over all examples so far."""
        return {"loss": self._mean(self.loss)}

    def _mean(self, total: Tensor) -> float:
        n = self.examples.item()
        return total.item() / n if n else float("nan")


class ClassificationTotals(LossTotals):
    """Mean loss, accuracy on clean labels and realized flip rate, from sums over examples and processes."""

    correct: Tensor
    flipped: Tensor

    def __init__(self) -> None:
        super().__init__()
        for count in ("correct", "flipped"):
            self.add_state(count, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor) -> None:  # type: ignore[override]
        """Adds examples.

        Args:
            losses: Loss of each example, shape (B,).
            outputs: Network outputs (B, C) or (B, 1).
            labels: Clean labels (B,).
            targets: Hard targets (B,) trained on; where they differ from the labels, a label was flipped.
        """
        # Which class is predicted by NaN is anybody's guess, and some losses of infinite outputs are zero.
        super().update(losses.where(outputs.isfinite().flatten(1).all(1), torch.nan))
        self.correct += (predicted_classes(outputs) == labels).sum()
        self.flipped += (targets != labels).sum()

    def compute(self) -> dict[str, float]:
        """``loss``, ``accuracy`` and ``flip_rate`` over all examples so far; the first two NaN where a number is."""
        return {
            **super().compute(),
            "accuracy": self._mean(self.correct) if self.loss.isfinite() else float("nan"),
            "flip_rate": self._mean(self.flipped),
        }
