"""Hutch++: the large eigenvalues exactly, the rest by random probes."""

import torch
from torch import Tensor

from lnsgd.measures.curvature.problem import Problem
from lnsgd.measures.curvature.products import by_tensor, hessian_products, rademacher
from lnsgd.measures.curvature.rounds import BlockTraces, Budget


def hutch_plus_plus(problem: Problem, budget: Budget, generator: torch.Generator) -> BlockTraces:
    """Tr H = Tr QᵀHQ + Tr (I − QQᵀ)H(I − QQᵀ), Q a basis of what H does to random vectors.

    Meyer, Musco, Musco and Woodruff (2021), Hutch++. A third of the products each finds Q, takes the first term
    exactly and estimates the second. Rounds double all three; what they have found is kept, so that a product is
    never taken twice; ``probes`` counts products.

    Raises:
        ValueError: fewer products allowed than the first round takes.
    """
    if budget.max_probes < 3 * budget.min_probes:
        raise ValueError(
            f"max_probes = {budget.max_probes}; method = 'hutch++' takes at least 3 · min_probes = "
            f"{3 * budget.min_probes} products: allow as many, or fewer min_probes"
        )
    state = _State(problem)
    more = budget.min_probes
    while True:
        samples = state.extend(more, generator)
        values = state.values()
        more = min(budget.more_probes(values), (budget.max_probes - state.products) // 3)
        if more <= 0:
            return BlockTraces.from_probes(values, samples, state.products)


class _State:
    """Basis and probes so far, with what the Hessian makes of them: four times (K, P) numbers."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        nothing = torch.zeros(0, problem.size, dtype=problem.parameters[0].dtype, device=problem.device)
        self.basis = self.of_basis = self.probes = self.of_probes = nothing
        self.products = 0

    def extend(self, count: int, generator: torch.Generator) -> int:
        """``count`` more probes, and as many more directions as there are."""
        directions = self._directions(min(count, self.problem.size - len(self.basis)), generator)
        probes = rademacher(self.problem, count, generator)
        found, samples = hessian_products(self.problem, torch.cat([directions, probes]))
        of_directions, of_probes = found.split([len(directions), len(probes)])
        self.basis, self.of_basis = torch.cat([self.basis, directions]), torch.cat([self.of_basis, of_directions])
        self.probes, self.of_probes = torch.cat([self.probes, probes]), torch.cat([self.of_probes, of_probes])
        self.products += len(directions) + len(found)
        return samples

    def _directions(self, count: int, generator: torch.Generator) -> Tensor:
        """What the Hessian makes of random vectors, orthonormal, and orthogonal to the basis."""
        if not count:  # it is that of the whole space
            return self.basis[:0]
        sketch, _ = hessian_products(self.problem, rademacher(self.problem, count, generator))
        # Twice, as the first time leaves rounding of the size of the sketch.
        for _ in range(2):
            sketch = sketch - sketch @ self.basis.T @ self.basis
            sketch = torch.linalg.qr(sketch.T).Q.T
        return sketch

    def values(self) -> Tensor:
        """By probe and tensor, (probes, T); the exact part is in each."""
        inside = by_tensor(self.basis.double() * self.of_basis, self.problem.parameters).sum(0)
        along = self.probes @ self.basis.T
        outside = self.probes.double() - along @ self.basis
        of_outside = self.of_probes.double() - along @ self.of_basis
        return inside + by_tensor(outside * of_outside, self.problem.parameters)
