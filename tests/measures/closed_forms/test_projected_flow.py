"""The flow on a manifold: a sphere with a closed-form solution, and small networks against tiny steps of Euler."""

import math
from dataclasses import dataclass

import pytest
import torch

from lnsgd.data import SphereInputs
from lnsgd.measures.closed_forms import SumNetwork, projected_flow, retract
from lnsgd.models import CubicPlusLinear
from lnsgd.rng import generator

NEURONS = 4


@dataclass
class Sphere:
    """The sphere ‖θ‖² = 1 in three dimensions, on which the height θ₃ falls."""

    def residuals(self, weights):
        return weights.square().sum(-1, keepdim=True) - 1

    def jacobian(self, weights):
        return 2 * weights[:, None]

    def regularizer_gradient(self, weights):
        return torch.tensor([0.0, 0.0, 1.0], dtype=weights.dtype).expand_as(weights)


def on_sphere(angles: list[float]) -> torch.Tensor:
    """Return points at the given angles from the top."""
    return torch.tensor([[math.sin(a), 0.0, math.cos(a)] for a in angles], dtype=torch.float64)


def test_height_on_the_sphere():
    """The angle α from the top obeys dα/ds = sin α, so that tan(α/2) grows like eˢ."""
    angles, times = [0.1, 1.0, 2.5], [0.0, 0.3, 1.0, 4.0]
    found = projected_flow(Sphere(), on_sphere(angles), times, tolerance=1e-8)
    for s, points in zip(times, found):
        expected = on_sphere([2 * math.atan(math.tan(a / 2) * math.exp(s)) for a in angles])
        torch.testing.assert_close(points, expected, rtol=0, atol=1e-6)


def test_the_error_scales_with_the_tolerance():
    expected = on_sphere([2 * math.atan(math.tan(0.5) * math.exp(2.0))])
    errors = [
        (projected_flow(Sphere(), on_sphere([1.0]), [2.0], tolerance)[0] - expected).abs().max().item()
        for tolerance in (1e-4, 1e-6, 1e-8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert all(error < 20 * tolerance for error, tolerance in zip(errors, (1e-4, 1e-6, 1e-8)))


def network(lr: float = 0.0) -> tuple[SumNetwork, torch.Tensor]:
    """Make two problems, and weights on their manifolds."""
    train = [SphereInputs().variant(seed).splits["train"] for seed in range(2)]
    inputs = torch.stack([one.inputs for one in train]).double()
    problem = SumNetwork(inputs, torch.stack([one.labels[:, 0] for one in train]).double(), CubicPlusLinear(0.1), lr)
    weights = 0.5 * torch.randn(2, NEURONS, 3, dtype=torch.float64, generator=generator(0, "data"))
    return problem, retract(problem, weights)


def test_stays_on_the_manifold_while_the_regularizer_falls():
    problem, start = network()
    path = projected_flow(problem, start, [0.0, 0.1, 1.0, 5.0, 20.0])
    assert torch.equal(path[0], start)
    assert max(problem.residuals(weights).abs().max().item() for weights in path) < 1e-11
    values = torch.stack([problem.squared_gradients(weights) for weights in path])
    assert (values.diff(dim=0) < 0).all()
    assert (2 * values >= problem.least_trace(NEURONS) - 1e-9).all()


@pytest.mark.parametrize("lr", [0.0, 0.05])
def test_agrees_with_tiny_euler_steps(lr):
    """Compute the projection independently: on the null space of J, by the singular value decomposition."""
    problem, start = network(lr)
    steps, weights = 2000, start.clone()
    for _ in range(steps):
        jacobian = problem.jacobian(weights).flatten(2)
        tangent = torch.linalg.svd(jacobian).Vh[:, jacobian.shape[1] :]
        gradient = problem.regularizer_gradient(weights).flatten(1)
        along = (tangent.mT @ (tangent @ gradient[..., None]))[..., 0]
        weights = retract(problem, weights - 0.5 / steps * along.view_as(weights))
    torch.testing.assert_close(projected_flow(problem, start, [0.5])[0], weights, rtol=0, atol=2e-3)


def test_neurons_become_equal_at_the_closed_form_rate():
    problem, start = network()
    rate = problem.rate(NEURONS).min().item()
    near, nearer = 12 / rate, 15 / rate
    path = projected_flow(problem, start, [near, nearer], tolerance=1e-9)
    assert problem.distance(path[-1]).max() < 1e-3
    values = torch.linalg.svdvals(path)
    ratio = values[..., 1] / values[..., 0]
    measured = (ratio[0] / ratio[1]).log() / (nearer - near)
    torch.testing.assert_close(measured, problem.rate(NEURONS), rtol=0.02, atol=0)


def test_results_do_not_depend_on_other_problems_or_times():
    problem, start = network()
    alone = SumNetwork(problem.inputs[:1], problem.targets[:1], problem.activation)
    together = projected_flow(problem, start, [0.2, 1.0])
    torch.testing.assert_close(projected_flow(alone, start[:1], [1.0])[0], together[1, :1], rtol=0, atol=1e-4)


def test_retract_is_the_nearest_point():
    torch.testing.assert_close(retract(Sphere(), 1.3 * on_sphere([0.7])), on_sphere([0.7]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("times", [[1.0, 1.0], [2.0, 1.0], [-1.0, 1.0]], ids=str)
def test_times_must_increase(times):
    with pytest.raises(ValueError, match="times must be"):
        projected_flow(Sphere(), on_sphere([1.0]), times)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="tolerance = 0"):
        projected_flow(Sphere(), on_sphere([1.0]), [1.0], tolerance=0)
    with pytest.raises(ValueError, match="manifold is not reached"):
        retract(Sphere(), torch.zeros(1, 3, dtype=torch.float64))
