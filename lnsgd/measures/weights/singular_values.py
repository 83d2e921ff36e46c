"""Singular values of matrices of weights and of features, and how many of them count."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lnsgd.measures.precision import in_double


def singular_values(matrix: Tensor) -> Tensor:
    """Compute the singular values σ₁ ≥ σ₂ ≥ … of a matrix, in float64.

    Args:
        matrix: Shape (a, b), of any type of floating-point or complex numbers.

    Returns:
        Shape (min(a, b),), float64; NaN if an entry is not finite, as in a network that diverges.

    Raises:
        ValueError: not a matrix.

    Example:
        >>> singular_values(torch.tensor([[0.0, 3.0], [4.0, 0.0]]))
        tensor([4., 3.], dtype=torch.float64)
    """
    if matrix.ndim != 2:
        raise ValueError(f"singular_values: shape {tuple(matrix.shape)}; give a matrix, which has two dimensions")
    double = in_double(matrix)
    if not double.isfinite().all():
        return torch.full((min(double.shape),), torch.nan, dtype=torch.float64, device=double.device)
    return torch.linalg.svdvals(double)


def effective_rank(values: Sequence[float] | Tensor, tolerance: float = 0.01) -> float:
    """Count the singular values above ``tolerance`` times the largest; 0 for a matrix of zeros.

    This is the rank of the matrix without its noise. It depends on the tolerance unless there is a gap between the
    singular values: look at them too.

    Args:
        values: Singular values, in any order.
        tolerance: Smallest singular value that counts, relative to the largest, in (0, 1).

    Returns:
        A whole number, or NaN if a value is not finite.

    Raises:
        ValueError: a tolerance outside (0, 1).

    Example:
        >>> effective_rank([5.0, 0.5, 1e-3])
        2.0
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"effective_rank: tolerance = {tolerance} is outside (0, 1); it is relative to the largest")
    values = torch.as_tensor(values, dtype=torch.float64)
    return float((values > tolerance * values.max()).sum()) if values.isfinite().all() else math.nan
