"""Krylov spaces of the Hessian by the block Lanczos iteration with full reorthogonalization."""

import torch
from torch import Tensor

from lnsgd.measures.curvature.problem import Problem
from lnsgd.measures.curvature.products import hessian_products

# A new direction that is smaller than this many rounding errors of the products is only rounding.
_ROUNDINGS = 100


class Krylov:
    """Orthonormal bases Q of span{X, HX, H²X, …} for K blocks X of b vectors, and QHQᵀ; H is the Hessian.

    The K spaces are independent; they grow together because their products share one graph. If a space stops growing
    because H maps it into itself, its further vectors are zeros, which are not multiplied.

    Everything except the products is float64: the bases take K·capacity·P numbers.

    Args:
        problem: The problem, which has the Hessian.
        starts: The blocks X, shape (K, b, P), of any norms.
        capacity: Largest number of vectors in a basis.

    Attributes:
        size: Number of vectors in each basis, zeros included.
        products: Number of Hessian products so far, in all spaces.
        samples: Number of examples.
    """

    def __init__(self, problem: Problem, starts: Tensor, capacity: int) -> None:
        self.problem = problem
        self.size = self.products = self.samples = 0
        spaces, self._block, entries = starts.shape
        self._outside = starts.double()
        self._basis = self._outside.new_zeros(spaces, capacity, entries)
        self._projected = self._outside.new_zeros(spaces, capacity, capacity)
        self._alive = torch.zeros(spaces, capacity, dtype=torch.bool, device=starts.device)
        # Largest norm of a product so far, to which rounding errors are relative.
        self._scale = self._outside.new_zeros(spaces)
        self._rounding = _ROUNDINGS * torch.finfo(problem.parameters[0].dtype).eps

    @property
    def basis(self) -> Tensor:
        """Q, shape (K, size, P); the vectors of the first block come first."""
        return self._basis[:, : self.size]

    @property
    def projected(self) -> Tensor:
        """QHQᵀ, shape (K, size, size); tridiagonal if b = 1."""
        return self._projected[:, : self.size, : self.size]

    @property
    def alive(self) -> Tensor:
        """Which vectors of the bases are not zeros, shape (K, size)."""
        return self._alive[:, : self.size]

    @property
    def outside(self) -> Tensor:
        """Parts of the last b products outside the space, shape (K, b, P): HQᵀ = Qᵀ(QHQᵀ) + (0, outsideᵀ)."""
        return self._outside

    @property
    def has_room(self) -> bool:
        """Whether another block fits."""
        return self.size + self._block <= self._basis.shape[1]

    def grow(self) -> bool:
        """Add b vectors to each basis; return whether any space has grown."""
        start = self.size
        for vectors in self._outside.unbind(1):
            self._append(vectors)
        new, alive = self.basis[:, start:], self.alive[:, start:]
        if not alive.any():
            self.size = start
            return False
        found, self.samples = hessian_products(self.problem, new[alive].to(self.problem.parameters[0].dtype))
        self.products += len(found)
        products = torch.zeros_like(new)
        products[alive] = found.double()
        self._scale = torch.maximum(self._scale, products.norm(dim=-1).amax(1))
        inside = self.basis @ products.mT
        self.projected[:, :, start:] = inside
        self.projected[:, start:, :] = inside.mT
        self._outside = products - inside.mT @ self.basis
        return True

    def _append(self, vectors: Tensor) -> None:
        """Orthonormalize a vector for each basis, shape (K, P), and add it; add zeros if only rounding is left."""
        for _ in range(2):  # once leaves rounding errors of the size of what was subtracted
            vectors = vectors - ((self.basis @ vectors.unsqueeze(-1)).mT @ self.basis).squeeze(1)
        norms = vectors.norm(dim=-1)
        alive = norms > self._rounding * self._scale
        self._basis[:, self.size] = torch.where(alive[:, None], vectors / norms[:, None], 0.0)
        self._alive[:, self.size] = alive
        self.size += 1

    def keep(self, coefficients: Tensor, values: Tensor) -> None:
        """Replace the bases by eigenvectors of QHQᵀ, which makes room (thick restart; Wu and Simon, 2000).

        The next products are with the same vectors as without a restart, so that the spaces keep growing.

        Args:
            coefficients: Orthonormal eigenvectors, shape (K, m, size), m < size.
            values: Their eigenvalues, shape (K, m).
        """
        kept = coefficients @ self.basis
        self._basis.zero_()
        self._projected.zero_()
        self.size = values.shape[1]
        self._alive[:, : self.size] = True
        self.basis.copy_(kept)
        self.projected.copy_(torch.diag_embed(values))
