"""A matrix as the product of a factor with its transpose."""

from typing import Literal

import torch
from torch import Tensor, nn


class MatrixFactorization(nn.Module):
    """Model h(A) = ⟨A, UUᵀ⟩ of measurement matrices A, with one trained factor U (d, r).

    The gradient is ∇_U h = (A + Aᵀ)U: only the symmetric part of A counts. For A with independent N(0, 1) entries
    E‖∇_U h‖² = 2(d + 1)‖U‖²_F, which is 2(d + 1) times the nuclear norm of UUᵀ (Blanc et al., matrix sensing).

    Args:
        size: Number d of rows and of columns of A.
        rank: Number r of columns of U, 1 to d; by default d, as in the paper.
        init: Where U starts: ``identity``, its first r columns; or ``gaussian``, independent entries N(0, 1/r), with
            which the mean of UUᵀ is the identity.

    Raises:
        ValueError: size below 1, a rank outside 1 to d, or an unknown initialization.
    """

    def __init__(self, size: int, rank: int | None = None, init: Literal["identity", "gaussian"] = "identity") -> None:
        super().__init__()
        rank = size if rank is None else rank
        if size < 1:
            raise ValueError(f"MatrixFactorization: size = {size}; it must be at least 1")
        if not 1 <= rank <= size:
            raise ValueError(f"MatrixFactorization: rank = {rank}; give 1 to {size}, the size")
        if init not in ("identity", "gaussian"):
            raise ValueError(f"MatrixFactorization: init = {init!r} is unknown; choose identity or gaussian")
        self.init = init
        self.factor = nn.Parameter(torch.empty(size, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the factor to the identity, which draws nothing, or draw it from torch's global generator."""
        if self.init == "identity":
            nn.init.eye_(self.factor)
        else:
            nn.init.normal_(self.factor, std=self.factor.shape[1] ** -0.5)

    def product(self) -> Tensor:
        """Compute UUᵀ, shape (d, d)."""
        return self.factor @ self.factor.T

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs (B, 1) of measurement matrices (B, d, d).

        Raises:
            ValueError: matrices of another size.
        """
        size = len(self.factor)
        if inputs.shape[1:] != (size, size):
            raise ValueError(
                f"MatrixFactorization: size = {size}, but inputs are of shape {tuple(inputs.shape[1:])}; "
                "give the size of the data"
            )
        return (inputs.flatten(1) @ self.product().flatten()).unsqueeze(1)
