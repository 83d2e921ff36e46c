"""How many different points there are, up to a tolerance."""

import math

import torch
from torch import Tensor


def clusters(points: Tensor, tolerance: float) -> Tensor:
    """Single-linkage clusters: points belong together that a chain of steps of at most ``tolerance`` joins.

    Args:
        points: (n, k), at least one.
        tolerance: Largest Euclidean distance of a step, ≥ 0, in the points' units.

    Returns:
        The cluster of each point, (n,), int64, counted from 0 in the order of the points.

    Raises:
        ValueError: no points, a number in them that is not finite, or a negative tolerance.

    Example:
        >>> clusters(torch.tensor([[0.0], [5.0], [0.1], [0.2]]), tolerance=0.15).tolist()
        [0, 1, 0, 0]
    """
    if points.ndim != 2 or not len(points) or not points.isfinite().all():
        raise ValueError(f"clusters: shape {tuple(points.shape)}; give one or more finite points, a row each")
    if not tolerance >= 0:
        raise ValueError(f"clusters: tolerance = {tolerance} is negative; it is the largest distance of neighbours")
    points = points.detach().double()
    near = (points[:, None] - points).norm(dim=-1) <= tolerance
    label = torch.arange(len(points), device=points.device)
    while True:
        # Every point takes the smallest label among its neighbours, until nothing changes.
        smallest = torch.where(near, label, len(points)).min(1).values
        if torch.equal(smallest, label):
            return torch.unique(label, return_inverse=True)[1]
        label = smallest


def cluster_count(points: Tensor, tolerance: float) -> float:
    """Number of `clusters`; NaN where a point is not finite, as in a network that is about to diverge.

    Args:
        points: (n, k), at least one.
        tolerance: Largest Euclidean distance of a step, ≥ 0, in the points' units.

    Example:
        >>> cluster_count(torch.tensor([[0.0], [5.0], [0.1], [0.2]]), tolerance=0.15)
        2.0
    """
    return float(clusters(points, tolerance).max()) + 1 if points.isfinite().all() else math.nan
