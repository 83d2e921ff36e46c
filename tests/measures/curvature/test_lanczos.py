"""Krylov spaces of the Hessian: bases, projections, and where they stop growing."""

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy
from lnsgd.measures.curvature.lanczos import Krylov
from lnsgd.measures.curvature.problem import Problem, differentiating
from tests.measures.small_problems import generator, mlp, vectors
from tests.reference.measures import dense_hessian
from tests.tolerances import EXACT


def of_mlp(dtype=torch.float64):
    """Return a problem of 43 parameters and its Hessian."""
    model, (inputs, labels) = mlp("tanh"), vectors()
    hessian, _ = dense_hessian(model, CrossEntropy(), inputs, labels)
    return Problem(model.to(dtype), CrossEntropy(), [(inputs.to(dtype), labels)]), hessian


def grown(problem, starts, capacity, times):
    krylov = Krylov(problem, starts, capacity)
    with differentiating(problem.model):
        for _ in range(times):
            assert krylov.grow()
    return krylov


def starts(spaces, block, entries):
    return torch.randn(spaces, block, entries, generator=generator(), dtype=torch.float64)


def assert_consistent(krylov, hessian, **tolerance):
    """Check orthonormal rows, the projection of H, and the parts of the last products outside the space."""
    for basis, projected, outside in zip(krylov.basis, krylov.projected, krylov.outside):
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), **EXACT)
        torch.testing.assert_close(projected, basis @ hessian @ basis.T, **tolerance)
        rest = basis @ hessian - projected @ basis
        torch.testing.assert_close(rest[-len(outside) :], outside, **tolerance)
        torch.testing.assert_close(rest[: -len(outside)], torch.zeros_like(rest[: -len(outside)]), **tolerance)


@pytest.mark.parametrize(("spaces", "block", "times"), [(1, 1, 20), (3, 1, 10), (1, 4, 6), (2, 3, 5)])
def test_bases_are_orthonormal_and_hold_the_hessian(spaces, block, times):
    problem, hessian = of_mlp()
    krylov = grown(problem, starts(spaces, block, 43), 40, times)
    assert (krylov.size, krylov.products, krylov.samples) == (block * times, spaces * block * times, 12)
    assert krylov.alive.all()
    assert_consistent(krylov, hessian, **EXACT)


def test_a_single_start_vector_gives_a_tridiagonal_matrix():
    problem, _ = of_mlp()
    start = starts(1, 1, 43)
    krylov = grown(problem, start, 20, 20)
    torch.testing.assert_close(krylov.basis[0, 0], start[0, 0] / start.norm(), **EXACT)
    (projected,) = krylov.projected
    assert (projected - projected.tril(1).triu(-1)).abs().max() < 1e-12
    assert not krylov.has_room


def test_bases_stay_orthonormal_with_float32_products():
    problem, hessian = of_mlp(torch.float32)
    krylov = grown(problem, starts(2, 1, 43), 30, 15)
    assert_consistent(krylov, hessian, rtol=1e-4, atol=1e-6)


class Diagonal(nn.Module):
    """Half of Σ_j λ_j θ_j²; the loss is the output."""

    def __init__(self, eigenvalues):
        super().__init__()
        self.register_buffer("eigenvalues", torch.tensor(eigenvalues, dtype=torch.float64))
        self.weights = nn.Parameter(torch.zeros(len(eigenvalues), dtype=torch.float64))

    def forward(self, x):
        return ((self.weights.square() * self.eigenvalues).sum() / 2).expand(len(x), 1)


def diagonal(eigenvalues):
    return Problem(Diagonal(eigenvalues), lambda outputs, _: outputs[:, 0], [(torch.zeros(2, 1), torch.zeros(2))])


def test_spaces_end_where_the_hessian_maps_them_into_themselves():
    # The first start has a part in three eigenspaces, the second in one only.
    problem = diagonal([3.0, 3.0, 2.0, 1.0, 1.0])
    start = torch.tensor([[[1.0, 1.0, 1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0, 1.0, -1.0]]], dtype=torch.float64)
    krylov = Krylov(problem, start, 5)
    with differentiating(problem.model):
        assert [krylov.grow() for _ in range(5)] == [True, True, True, False, False]
    assert (krylov.size, krylov.products) == (3, 3 + 1)
    assert krylov.alive.tolist() == [[True, True, True], [True, False, False]]
    expected = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.eigvalsh(krylov.projected[0]), expected, **EXACT)
    assert krylov.projected[1, 0, 0].item() == pytest.approx(1)
    assert krylov.projected[1, 1:].abs().max() == 0
    assert krylov.basis[1, 1:].abs().max() == 0


def test_start_vectors_that_depend_on_each_other_count_once():
    problem = diagonal([4.0, 3.0, 2.0, 1.0])
    start = torch.ones(1, 3, 4, dtype=torch.float64)
    start[0, 2, 0] = -1
    krylov = grown(problem, start, 12, 1)
    assert krylov.alive.tolist() == [[True, False, True]]
    assert krylov.products == 2


@pytest.mark.parametrize("block", [1, 3])
def test_a_restart_keeps_eigenvectors_and_the_next_vectors(block):
    problem, hessian = of_mlp()
    krylov = grown(problem, starts(1, block, 43), 18, 12 // block)
    values, coefficients = torch.linalg.eigh(krylov.projected[0])
    values, coefficients = values[-5:], coefficients.T[-5:]
    expected_rows, outside = coefficients @ krylov.basis[0], krylov.outside.clone()
    krylov.keep(coefficients[None], values[None])
    assert krylov.size == 5
    torch.testing.assert_close(krylov.basis[0], expected_rows, **EXACT)
    torch.testing.assert_close(krylov.projected[0], values.diag(), **EXACT)
    with differentiating(problem.model):
        assert krylov.grow()
        span = torch.linalg.qr(outside[0].T).Q
        torch.testing.assert_close(span @ span.T @ krylov.basis[0, 5:].T, krylov.basis[0, 5:].T, **EXACT)
        while krylov.has_room:
            assert krylov.grow()
    assert_consistent(krylov, hessian, **EXACT)
