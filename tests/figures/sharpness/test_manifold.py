"""Gradient and Hessian on the manifold of zero loss, against differences along curves on it; claims on the lemmas."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lnsgd.data import SphereInputs
from lnsgd.figures.sharpness.manifold import Geometry, geometry, judge_lemmas, tangent_gradient, tangent_hessian
from lnsgd.figures.sharpness.shared import instances
from lnsgd.measures.closed_forms import projected_flow, retract
from lnsgd.rng import generator
from tests.figures.handmade import within_bounds

SEEDS, NEURONS = 2, 4


@pytest.fixture(scope="module")
def problem():
    return instances(SphereInputs(), range(SEEDS), 0.1)


@pytest.fixture(scope="module")
def point(problem):
    drawn = 0.3 * torch.randn(SEEDS, NEURONS, 3, dtype=torch.float64, generator=generator(0, "data"))
    return retract(problem, drawn)


def test_gradient_and_hessian_are_derivatives_along_curves_on_the_manifold(problem, point):
    """The nearest point of the manifold to θ + tu is a curve whose acceleration is normal to the manifold."""
    gradient, _ = tangent_gradient(problem, point)
    hessian = tangent_hessian(problem, point)
    jacobian = problem.jacobian(point).flatten(2)
    basis = torch.linalg.svd(jacobian)[2][:, jacobian.shape[1] :]
    assert (jacobian @ gradient[..., None]).abs().max() < 1e-12
    step = 1e-4
    for k in (0, 4):
        along = basis[:, k].view_as(point)
        ahead, behind = (problem.squared_gradients(retract(problem, point + sign * step * along)) for sign in (1, -1))
        here = problem.squared_gradients(point)
        first = (gradient * basis[:, k]).sum(1)
        torch.testing.assert_close((ahead - behind) / (2 * step), first, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close((ahead - 2 * here + behind) / step**2, hessian[:, k, k], rtol=1e-3, atol=1e-3)


def test_lemmas_hold_along_the_flow(problem, point):
    times = np.geomspace(0.01, 60, 60)
    found = geometry(problem, projected_flow(problem, point, times.tolist()))
    assert found.stationary[:, -1].all()
    assert not found.stationary[:, 0].any()
    assert all(within_bounds(claim) for claim in judge_lemmas(found))


GOOD = Geometry(
    gradient=np.array([[9.0, 2.0, 0.9, 0.5]]),
    curvature=np.array([[-5.0, -1.0, 0.1, 0.2]]),
    distance=np.array([[1.0, 0.9, 0.4, 0.2]]),
    threshold=np.ones((1, 1)),
    strength=np.ones((1, 1)),
)
CASES = {
    "as-in-the-lemmas": ({}, []),
    "rises": ({"gradient": np.array([[9.0, 0.5, 0.9, 0.8]]), "curvature": np.ones((1, 4))}, [0, 3]),
    "leaves": ({"gradient": np.array([[0.5, 2.0, 0.9, 0.5]]), "curvature": np.ones((1, 4))}, [0, 1, 3]),
    "concave": ({"curvature": np.array([[1.0, 1.0, -0.1, 0.2]])}, [2]),
    "far": ({"distance": np.array([[1.0, 0.9, 1.0, 0.2]])}, [3]),
}


@pytest.mark.parametrize(("changed", "fail"), CASES.values(), ids=CASES)
def test_each_claim_can_fail(changed, fail):
    claims = judge_lemmas(replace(GOOD, **changed))
    assert [number for number, claim in enumerate(claims) if not within_bounds(claim)] == fail
