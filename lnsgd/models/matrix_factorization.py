"""A matrix as the product of a factor with itself."""

import torch
from torch import Tensor, nn


class MatrixFactorization(nn.Module):
    """h(A) = ⟨A, UUᵀ⟩ of measurement matrices A, with one trained factor U (d, r), which starts at the identity.

    The gradient is ∇_U h = (A + Aᵀ)U: only the symmetric part of A counts. For A with independent N(0, 1) entries
    E‖∇_U h‖² = 2(d + 1)‖U‖²_F, which is 2(d + 1) times the nuclear norm of UUᵀ (Blanc et al., matrix sensing).

    Args:
        size: d, rows and columns of A.
        rank: r, columns of U, 1 to d; d by default, as in the paper. With fewer, U starts at the identity's first r.

    Raises:
        ValueError: size below 1, or a rank outside 1 to d.
    """

    def __init__(self, size: int, rank: int | None = None) -> None:
        super().__init__()
        rank = size if rank is None else rank
        if size < 1:
            raise ValueError(f"MatrixFactorization: size = {size}; it must be at least 1")
        if not 1 <= rank <= size:
            raise ValueError(f"MatrixFactorization: rank = {rank}; give 1 to {size}, the size")
        self.factor = nn.Parameter(torch.empty(size, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Puts the factor at the identity. Draws nothing."""
        nn.init.eye_(self.factor)

    def product(self) -> Tensor:
        """UUᵀ, (d, d)."""
        return self.factor @ self.factor.T

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (B, 1) of measurement matrices (B, d, d).

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
