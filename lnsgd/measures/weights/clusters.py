"""Clusters of points, and how many of them there are."""

import math

import torch
from torch import Tensor

from lnsgd.measures.precision import as_real


def clusters(points: Tensor, tolerance: float) -> Tensor:
    """Find single-linkage clusters: two points belong together if a chain of steps ≤ ``tolerance`` joins them.

    Args:
        points: Shape (n, k), real or complex, at least one point.
        tolerance: Largest Euclidean distance of a step, ≥ 0, in the points' units.

    Returns:
        The cluster of each point, shape (n,), int64, counted from 0 in the order of the points.

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
    points = as_real(points).detach().double()
    near = (points[:, None] - points).norm(dim=-1) <= tolerance
    label = torch.arange(len(points), device=points.device)
    while True:
        # Every point takes the smallest label among its neighbours, until nothing changes.
        smallest = torch.where(near, label, len(points)).min(1).values
        if torch.equal(smallest, label):
            return torch.unique(label, return_inverse=True)[1]
        label = smallest


def cluster_count(points: Tensor, tolerance: float) -> float:
    """Count the `clusters` of points.

    Args:
        points: Shape (n, k), at least one point.
        tolerance: Largest Euclidean distance of a step, ≥ 0, in the points' units.

    Returns:
        A whole number; NaN if a point is not finite, as in a network that diverges.

    Example:
        >>> cluster_count(torch.tensor([[0.0], [5.0], [0.1], [0.2]]), tolerance=0.15)
        2.0
    """
    return float(clusters(points, tolerance).max()) + 1 if points.isfinite().all() else math.nan
