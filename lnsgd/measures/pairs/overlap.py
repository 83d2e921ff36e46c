"""Overlap of the neurons that are active in two networks."""

from math import nan

from torch import Tensor

from lnsgd.measures.neurons.firings import Firings


def jaccard(first: Tensor, second: Tensor) -> float:
    """Compute the Jaccard index |A ∩ B| / |A ∪ B| of two sets of units.

    Args:
        first: A as a boolean tensor, of any shape.
        second: B as a boolean tensor of the same shape.

    Returns:
        A number from 0 to 1; NaN if both sets are empty.

    Raises:
        ValueError: tensors of different shapes.

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
    """Say which units fire on at least one example.

    Args:
        firings: Counts of one layer.

    Returns:
        Boolean, shape (units,).
    """
    return firings.fired.sum(0) > 0


def often_active(firings: Firings) -> Tensor:
    """Say which units fire on more than half of the examples.

    Args:
        firings: Counts of one layer.

    Returns:
        Boolean, shape (units,).
    """
    return 2 * firings.fired.sum(0) > firings.examples.sum()
