"""Traces from products of the Hessian with vectors: one product per parameter, Hutchinson, and Hutch++."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from lnsgd.measures.curvature.problem import Problem, chunks
from lnsgd.measures.curvature.products import batch_products, by_tensor, check_products, hessian_products, rademacher

MAX_PARAMETERS = 20_000


@dataclass(frozen=True)
class Budget:
    """The number of probes that an estimate may take.

    Attributes:
        rtol: An estimate is good enough when its standard error is at most this fraction of it.
        min_probes: Smallest number of probes, because the spread of a few says little about the error.
        max_probes: Largest number of probes.

    Raises:
        ValueError: a tolerance that is not positive, fewer than two probes, or a maximum below the minimum.
    """

    rtol: float = 0.02
    min_probes: int = 16
    max_probes: int = 1000

    def __post_init__(self) -> None:
        if not self.rtol > 0:
            raise ValueError(f"rtol = {self.rtol}; the relative standard error to be reached must be > 0")
        if self.min_probes < 2:
            raise ValueError(f"min_probes = {self.min_probes}; at least 2 are needed for a standard error")
        if self.max_probes < self.min_probes:
            raise ValueError(f"max_probes = {self.max_probes} is below min_probes = {self.min_probes}")

    def is_reached(self, value: float, standard_error: float) -> bool:
        """Say whether an estimate is good enough."""
        return standard_error <= self.rtol * abs(value)

    def expected_probes(self, values: Tensor) -> int:
        """Return how many probes the tolerance takes by the spread so far, at most the largest number allowed.

        Args:
            values: See `more_probes`.
        """
        totals = values.sum(1)
        allowed = self.rtol * totals.mean().abs().item()
        needed = (totals.std().item() / allowed) ** 2 if allowed else self.max_probes
        return ceil(min(needed, self.max_probes))

    def more_probes(self, values: Tensor) -> int:
        """Decide how many probes to add.

        The number is doubled instead of increased by one: the more often one looks, the likelier one stops at a spread
        that is too small by chance.

        Args:
            values: Values of independent probes, shape (P, T), whose sum over T is estimated.

        Returns:
            0 if the estimate is good enough, or if no more probes are allowed.
        """
        totals = values.sum(1)
        if self.is_reached(totals.mean().item(), totals.std().item() / len(totals) ** 0.5):
            return 0
        return min(len(totals), self.max_probes - len(totals))


@dataclass(frozen=True)
class BlockTraces:
    """Traces of the diagonal blocks of the Hessian that belong to the T tensors of θ.

    Attributes:
        values: Shape (T,), float64.
        errors: Standard errors of the values, shape (T,).
        total_error: Standard error of the sum of the values.
        probes: Number of probes; 0 if the values are exact.
        samples: Number of examples.
    """

    values: Tensor
    errors: Tensor
    total_error: float
    probes: int
    samples: int

    @classmethod
    def exact(cls, values: Tensor, samples: int) -> "BlockTraces":
        """Make traces without an error."""
        return cls(values, torch.zeros_like(values), 0.0, 0, samples)

    @classmethod
    def from_probes(cls, values: Tensor, samples: int, probes: int) -> "BlockTraces":
        """Make traces from independent values, shape (K, T): their mean and its standard error."""
        root = len(values) ** 0.5
        return cls(values.mean(0), values.std(0) / root, values.sum(1).std().item() / root, probes, samples)


def exact(problem: Problem) -> BlockTraces:
    """Compute the diagonal of the Hessian with one product per parameter.

    Raises:
        ValueError: more than `MAX_PARAMETERS` parameters.
    """
    if problem.size > MAX_PARAMETERS:
        raise ValueError(
            f"method = 'exact' takes one Hessian product per parameter, and there are {problem.size}; at most "
            f"{MAX_PARAMETERS} are allowed: use method = 'auto'"
        )
    check_products(problem)
    problem.expect(problem.size)
    sums = torch.zeros(problem.size, dtype=torch.float64, device=problem.device)
    samples = 0
    for inputs, labels in problem.batches():
        for some, of_them in chunks(inputs, labels):
            loss = problem.losses(problem.outputs(some), of_them).sum()
            products = batch_products(loss, problem.parameters, _unit_vectors(problem))
            for i, product in enumerate(products):
                sums[i] += product[i]
                problem.advance(len(of_them))
        samples += len(labels)
    return BlockTraces.exact(*problem.mean(by_tensor(sums, problem.parameters), samples))


def _unit_vectors(problem: Problem) -> Iterator[Tensor]:
    unit = torch.zeros(problem.size, dtype=problem.parameters[0].dtype, device=problem.device)
    for i in range(problem.size):
        unit[i] = 1
        yield unit
        unit[i] = 0


def hutchinson(problem: Problem, budget: Budget, generator: torch.Generator) -> BlockTraces:
    """Estimate the trace as the mean of vᵀHv over independent sign vectors v, since E[vᵀHv] = Tr H (Hutchinson, 1990).

    Each round doubles the number of probes, which share one double-backward graph per batch.
    """
    check_products(problem)
    problem.expect(budget.max_probes)
    values, samples = _quadratic_forms(problem, rademacher(problem, budget.min_probes, generator))
    while more := budget.more_probes(values):
        problem.expect(max(budget.expected_probes(values), len(values) + more))
        added, samples = _quadratic_forms(problem, rademacher(problem, more, generator))
        values = torch.cat([values, added])
    return BlockTraces.from_probes(values, samples, len(values))


def _quadratic_forms(problem: Problem, vectors: Tensor) -> tuple[Tensor, int]:
    sums = torch.zeros(len(vectors), len(problem.parameters), dtype=torch.float64, device=problem.device)
    samples = 0
    for inputs, labels in problem.batches():
        for some, of_them in chunks(inputs, labels):
            loss = problem.losses(problem.outputs(some), of_them).sum()
            products = batch_products(loss, problem.parameters, vectors)
            for k, (vector, product) in enumerate(zip(vectors, products)):
                sums[k] += by_tensor(vector.double() * product, problem.parameters)
                problem.advance(len(of_them))
        samples += len(labels)
    return problem.mean(sums, samples)


def hutch_plus_plus(problem: Problem, budget: Budget, generator: torch.Generator) -> BlockTraces:
    """Estimate Tr H = Tr QᵀHQ + Tr (I − QQᵀ)H(I − QQᵀ), Q a basis of what H makes of random vectors.

    Meyer, Musco, Musco and Woodruff (2021), Hutch++. A third of the products finds Q, a third computes the first term
    exactly, and a third estimates the second term. Each round doubles all three; earlier results are kept, so that a
    product is never taken twice. ``probes`` counts products.

    Raises:
        ValueError: fewer products allowed than the first round takes.
    """
    if budget.max_probes < 3 * budget.min_probes:
        raise ValueError(
            f"max_probes = {budget.max_probes}; method = 'hutch++' takes at least 3 · min_probes = "
            f"{3 * budget.min_probes} products: allow as many, or fewer min_probes"
        )
    check_products(problem)
    problem.expect(budget.max_probes)
    sketch = _Sketch(problem)
    more = budget.min_probes
    while True:
        samples = sketch.extend(more, generator)
        values = sketch.values()
        more = min(budget.more_probes(values), (budget.max_probes - sketch.products) // 3)
        if more <= 0:
            return BlockTraces.from_probes(values, samples, sketch.products)


class _Sketch:
    """Basis and probes of Hutch++ so far, with their products with the Hessian: four times (K, P) numbers."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        nothing = torch.zeros(0, problem.size, dtype=problem.parameters[0].dtype, device=problem.device)
        self.basis = self.of_basis = self.probes = self.of_probes = nothing
        self.products = 0

    def extend(self, count: int, generator: torch.Generator) -> int:
        """Add ``count`` probes, and as many directions, or as many as there are left; return the number of examples."""
        directions = self._directions(min(count, self.problem.size - len(self.basis)), generator)
        probes = rademacher(self.problem, count, generator)
        found, samples = hessian_products(self.problem, torch.cat([directions, probes]))
        of_directions, of_probes = found.split([len(directions), len(probes)])
        self.basis, self.of_basis = torch.cat([self.basis, directions]), torch.cat([self.of_basis, of_directions])
        self.probes, self.of_probes = torch.cat([self.probes, probes]), torch.cat([self.of_probes, of_probes])
        self.products += len(directions) + len(found)
        return samples

    def _directions(self, count: int, generator: torch.Generator) -> Tensor:
        """Return products of the Hessian with random vectors, orthonormal, and orthogonal to the basis."""
        if not count:  # the basis spans the whole space
            return self.basis[:0]
        sketch, _ = hessian_products(self.problem, rademacher(self.problem, count, generator))
        # Twice, because the first time leaves rounding errors of the size of the sketch.
        for _ in range(2):
            sketch = sketch - sketch @ self.basis.T @ self.basis
            sketch = torch.linalg.qr(sketch.T).Q.T
        return sketch

    def values(self) -> Tensor:
        """Return an estimate by each probe for each tensor, shape (probes, T); the exact term is part of each."""
        inside = by_tensor(self.basis.double() * self.of_basis, self.problem.parameters).sum(0)
        along = self.probes @ self.basis.T
        outside = self.probes.double() - along @ self.basis
        of_outside = self.of_probes.double() - along @ self.of_basis
        return inside + by_tensor(outside * of_outside, self.problem.parameters)
