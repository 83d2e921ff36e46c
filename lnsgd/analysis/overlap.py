"""Which neurons two networks have in common."""

from math import nan

from torch import Tensor

from lnsgd.measures import Firings


def jaccard(first: Tensor, second: Tensor) -> float:
    """|A ∩ B| / |A ∪ B| of two sets of units, each given as a boolean tensor; NaN where both are empty.

    Raises:
        ValueError: tensors of different shape.

    Example:
        >>> import torch
        >>> jaccard(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
        0.5
    """
    if first.shape != second.shape:
        raise ValueError(f"sets among {tuple(first.shape)} and among {tuple(second.shape)} units; give the same units")
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else nan


def ever_active(firings: Firings) -> Tensor:
    """Units that fire on at least one example, (units,)."""
    return firings.fired.sum(0) > 0


def often_active(firings: Firings) -> Tensor:
    """Units that fire on more than half of the examples, (units,)."""
    return 2 * firings.fired.sum(0) > firings.examples.sum()
