"""The test error of matrix sensing."""

from torch import Tensor


def recovery_error(factor: Tensor, target: Tensor) -> float:
    """Compute ‖UUᵀ − X*‖²_F, a sum over entries without ½, in float64.

    This is the expected test error of matrix sensing (Blanc et al., Fig. 1): for A with independent N(0, 1) entries and
    any matrix D, E⟨A, D⟩² = ‖D‖²_F, so that E(⟨A, UUᵀ⟩ − ⟨A, X*⟩)² is this number.

    Args:
        factor: U, shape (d, r).
        target: X*, shape (d, d).

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> import torch
        >>> recovery_error(torch.tensor([[1.0], [2.0]]), torch.eye(2))
        17.0
    """
    if target.shape != (len(factor), len(factor)):
        raise ValueError(
            f"recovery_error: a factor of shape {tuple(factor.shape)} for a matrix of shape {tuple(target.shape)}; "
            "both need the same number of rows, and the matrix as many columns"
        )
    double = factor.detach().double()
    return (double @ double.T - target.to(double)).square().sum().item()
