"""Linear measurements of a matrix of low rank."""

from typing import Any

import torch
from torch import Tensor

from lnsgd import rng
from lnsgd.data.synthetic import SyntheticData
from lnsgd.data.tensors import LabelledTensors

# Part of the key of the matrix; the keys of the splits contain 0 to 2.
_MATRIX = 3


class MatrixSensing(SyntheticData):
    """Measurements y = ⟨A, X*⟩ of X* = U*U*ᵀ, A with independent N(0, 1) entries (Blanc et al., Fig. 1).

    U* (d, r) has independent columns, uniform on the unit sphere, so that the nuclear norm of X* is r; the paper
    does not say how U* is drawn. Every seed has a matrix of its own. A training set takes 4·n·d² bytes in float32.

    Args:
        size: d.
        rank: r, 1 to d.
        train_size: Number of training measurements n; 5dr by default, as in the paper.
        test_size: Number of validation measurements, and of test measurements.
        options: See `SyntheticData`.

    Raises:
        ValueError: d below 1, r outside 1 to d, a size below 1.
    """

    num_classes = None

    def __init__(
        self, size: int = 100, rank: int = 5, train_size: int | None = None, test_size: int = 200, **options: Any
    ) -> None:
        if size < 1:
            raise ValueError(f"MatrixSensing: size = {size}; it must be at least 1")
        if not 1 <= rank <= size:
            raise ValueError(f"MatrixSensing: rank = {rank}; give 1 to {size}, the size")
        super().__init__(5 * size * rank if train_size is None else train_size, test_size, **options)
        self.size = size
        self.rank = rank

    @property
    def target(self) -> Tensor:
        """X*, (d, d), of this seed."""
        columns = torch.randn(self.size, self.rank, generator=rng.generator(self.seed, "data", _MATRIX))
        columns /= columns.norm(dim=0)
        product = columns @ columns.T
        return (product + product.T) / 2  # the product of some BLAS libraries is not exactly symmetric

    def draw(self, size: int, generator: torch.Generator) -> LabelledTensors:
        """Draw independent measurements: matrices (n, d, d) and targets (n, 1)."""
        matrices = torch.randn(size, self.size, self.size, generator=generator)
        return LabelledTensors(matrices, (matrices.flatten(1) @ self.target.flatten()).unsqueeze(1))
