"""Sums over the examples of an epoch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lnsgd import compat
from lnsgd.losses import predicted_classes

# Counting a small batch takes about as long as counting many.
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
        """Follow a module to other devices, but not to other types: in half precision a sum would soon stop growing."""
        return super()._apply(lambda sums: sums.to(fn(sums.new_empty(0)).device), exclude_state)

    def add(self, *columns: Tensor) -> None:
        """Add a batch by `update`, once a few batches have come together: for a small network the update takes time.

        Args:
            columns: Arguments of `update`.
        """
        self._waiting.append(columns)
        if len(self._waiting) >= _BATCHES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Count the batches that still wait."""
        if self._waiting:
            columns = [torch.cat(column) for column in zip(*self._waiting)]
            self._waiting.clear()
            self.update(*columns)

    def restart(self) -> None:
        """Forget everything, also the batches that wait."""
        self._waiting.clear()
        self.reset()

    def finish(self) -> dict[str, float]:
        """Return the result over all batches, and restart."""
        self.flush()
        values = self.compute()
        self.restart()
        return values

    def sums(self) -> dict[str, Tensor]:
        """Return the sums of this process, for a checkpoint."""
        self.flush()
        return {name: getattr(self, name).clone().cpu() for name in compat.metric_states(self)}

    def load_sums(self, saved: Sequence[dict[str, Tensor]], rank: int, world_size: int) -> None:
        """Restore the sums from a checkpoint.

        Args:
            saved: Sums of each process that wrote the checkpoint; nothing is restored if there are none.
            rank: Rank of this process.
            world_size: Number of processes now; if it has changed, the first process takes the sums of all.
        """
        if not saved:
            return
        if world_size == len(saved):
            mine = saved[rank]  # a sum that was computed in two parts would round differently
        elif rank == 0:
            mine = {name: sum(sums[name] for sums in saved) for name in saved[0]}  # type: ignore[misc]
        else:
            return
        for name, value in mine.items():
            setattr(self, name, value.to(self.device))

    def update(self, losses: Tensor) -> None:
        """Add examples.

        Args:
            losses: Loss of each example, shape (B,).
        """
        # One after the other: a checkpoint changes how batches are grouped, and must not change the sum.
        self.loss = torch.cat([self.loss.view(1), losses.double()]).cumsum(0)[-1].clone()
        self.examples += len(losses)

    def compute(self) -> dict[str, float]:
        """Return ``loss``, the mean over all examples so far."""
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
        """Add examples.

        Args:
            losses: Loss of each example, shape (B,).
            outputs: Network outputs (B, C) or (B, 1).
            labels: Clean labels (B,).
            targets: Hard targets (B,) of training; a label was flipped if its target is another one.
        """
        # NaN does not predict a class, and some losses of infinite outputs are zero.
        super().update(losses.where(outputs.isfinite().flatten(1).all(1), torch.nan))
        self.correct += (predicted_classes(outputs) == labels).sum()
        self.flipped += (targets != labels).sum()

    def compute(self) -> dict[str, float]:
        """Return ``loss``, ``accuracy`` and ``flip_rate`` over all examples so far.

        Loss and accuracy are NaN if the loss of an example is not finite.
        """
        return {
            **super().compute(),
            "accuracy": self._mean(self.correct) if self.loss.isfinite() else float("nan"),
            "flip_rate": self._mean(self.flipped),
        }


class SplitTotals(nn.Module):
    """Totals of the training, validation and test split.

    Args:
        kind: Class of the totals.
    """

    def __init__(self, kind: type[LossTotals]) -> None:
        super().__init__()
        # A ModuleDict cannot have an item named ``train``, which is a method.
        self._totals = nn.ModuleDict({f"{split}_totals": kind() for split in ("train", "val", "test")})

    def __getitem__(self, split: str) -> LossTotals:
        """Return the totals of a split: ``train``, ``val`` or ``test``."""
        return self._totals[f"{split}_totals"]  # type: ignore[return-value]
