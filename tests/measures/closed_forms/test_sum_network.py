"""Closed forms of Σ_j φ(θ_j·x) against dense derivatives by autograd, and its minimum against descent."""

import math

import pytest
import torch

from lnsgd.data import SphereInputs
from lnsgd.measures.closed_forms import SumNetwork, retract, sharpness, sum_network
from lnsgd.models import MLP, Constant, CubicPlusLinear, Normal
from lnsgd.rng import generator
from tests.tolerances import EXACT

NEURONS = 4
CASES = {"square": (3, 3, 0.1), "tall": (2, 5, 0.1), "cube": (3, 2, 0.0)}


def problem_of(dimension: int, examples: int, nu: float, problems: int = 2, lr: float = 0.0) -> SumNetwork:
    """Draw inputs whose norms differ from one."""
    draw = generator(0, "data", dimension, examples)
    inputs = torch.rand(problems, examples, dimension, dtype=torch.float64, generator=draw)
    return SumNetwork(
        inputs, torch.rand(problems, examples, dtype=torch.float64, generator=draw), CubicPlusLinear(nu), lr
    )


def weights_of(problem: SumNetwork) -> torch.Tensor:
    problems, _, dimension = problem.inputs.shape
    return torch.randn(problems, NEURONS, dimension, dtype=torch.float64, generator=generator(1, "data"))


def fitted_by(problem: SumNetwork, weights: torch.Tensor) -> SumNetwork:
    """Return the problem with targets that the given weights fit."""
    return SumNetwork(problem.inputs, problem.residuals(weights) + problem.targets, problem.activation)


@pytest.fixture(params=CASES.values(), ids=CASES)
def problem(request: pytest.FixtureRequest) -> SumNetwork:
    return problem_of(*request.param)


def outputs(problem: SumNetwork, index: int, weights: torch.Tensor) -> torch.Tensor:
    """Compute r(x_i) of one problem, neuron by neuron."""
    z = torch.stack([problem.inputs[index] @ neuron for neuron in weights])
    return (z**3 + problem.activation.nu * z).sum(0)


def loss(problem: SumNetwork, index: int, weights: torch.Tensor) -> torch.Tensor:
    return (outputs(problem, index, weights) - problem.targets[index]).square().sum()


def regularizer(problem: SumNetwork, index: int, weights: torch.Tensor) -> torch.Tensor:
    jacobian = torch.func.jacrev(lambda w: outputs(problem, index, w))(weights)
    return jacobian.square().sum()


def test_derivatives(problem):
    weights = weights_of(problem)
    for index, own in enumerate(weights):
        expected = torch.func.jacrev(lambda w: outputs(problem, index, w))(own)  # noqa: B023
        torch.testing.assert_close(problem.jacobian(weights)[index], expected, **EXACT)
        torch.testing.assert_close(problem.squared_gradients(weights)[index], expected.square().sum(), **EXACT)
        gradient = torch.func.grad(lambda w: regularizer(problem, index, w))(own)  # noqa: B023
        torch.testing.assert_close(problem.regularizer_gradient(weights)[index], gradient, **EXACT)
        hessian = torch.func.hessian(lambda w: loss(problem, index, w.view_as(own)))(own.flatten())  # noqa: B023
        torch.testing.assert_close(problem.trace(weights)[index], hessian.trace(), **EXACT)
        torch.testing.assert_close(problem.residuals(weights)[index].square().sum(), loss(problem, index, own), **EXACT)


def test_drift_at_a_finite_step_follows_from_the_stationary_covariance():
    """The covariance C of δ ← δ − 2ηJᵀ(Jδ − z) is found by iteration, for noise of variance 1."""
    lr = 0.01
    problem = problem_of(3, 2, 0.1, problems=1, lr=lr)
    weights = weights_of(problem)
    flat = problem.jacobian(weights)[0].flatten(1)
    shrink = torch.eye(flat.shape[1], dtype=torch.float64) - 2 * lr * flat.T @ flat
    covariance = torch.zeros_like(shrink)
    for _ in range(5000):
        covariance = shrink @ covariance @ shrink + 4 * lr**2 * flat.T @ flat
    drift = torch.zeros_like(weights[0]).flatten()
    for i in range(len(flat)):
        hessian = torch.func.hessian(lambda w: outputs(problem, 0, w.view_as(weights[0]))[i])(weights[0].flatten())  # noqa: B023
        drift += 2 * lr * hessian @ covariance @ flat[i]
    expected = lr**2 * problem.regularizer_gradient(weights)[0].flatten()
    torch.testing.assert_close(drift, expected, rtol=1e-8, atol=1e-12)


def test_least_trace_is_reached_by_equal_neurons_only(problem):
    least = problem.least_trace(NEURONS)
    examples, dimension = problem.inputs.shape[1:]
    if examples <= dimension:
        shares = problem.shares(NEURONS)
        one = torch.linalg.lstsq(problem.inputs, shares[..., None]).solution.mT
        equal = one.expand(-1, NEURONS, -1)
        torch.testing.assert_close(problem.residuals(equal), torch.zeros_like(problem.targets), **EXACT)
        torch.testing.assert_close(problem.trace(equal), least, **EXACT)
        assert problem.distance(equal).max() < 1e-12
    for scale in (0.1, 1.0, 2.0):
        weights = scale * weights_of(problem)
        fitted = fitted_by(problem, weights)
        assert (2 * fitted.squared_gradients(weights) > fitted.least_trace(NEURONS)).all()


def test_trace_at_zero_loss_is_twice_the_squared_gradients(problem):
    weights = weights_of(problem)
    fitted = fitted_by(problem, weights)
    torch.testing.assert_close(fitted.trace(weights), 2 * fitted.squared_gradients(weights), **EXACT)


def test_rate_is_at_least_that_of_the_theorem():
    for seed in range(5):
        train = SphereInputs().variant(seed).splits["train"]
        problem = SumNetwork(train.inputs.double()[None], train.labels.double().T, CubicPlusLinear(0.1))
        gram = problem.inputs[0] @ problem.inputs[0].T
        assert problem.rate(10).item() >= 2 * torch.linalg.eigvalsh(gram)[0].item() * 6 * 0.1


def net_of(init: list | None = None, **options) -> MLP:
    chosen = {"bias": False, "activation": "cubic", "init": init or [Normal(0.3), Constant(1.0)]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP([3, NEURONS, 1], **{**chosen, **options})


def test_numbers_of_a_network():
    train = SphereInputs().variant(0).splits["train"]
    net = net_of()
    found = sharpness(net, train.inputs, train.labels)
    weights, problem = sum_network(net, train.inputs, train.labels)
    assert weights.shape == (1, NEURONS, 3)
    double = net_of().double()
    exact = double(train.inputs.double()) - train.labels.double()
    assert found.loss == pytest.approx(exact.square().sum().item())
    assert found.trace == problem.trace(weights).item()
    assert found.gradient_trace == 2 * problem.squared_gradients(weights).item()
    assert found.least_trace == problem.least_trace(NEURONS).item()
    assert found.distance == problem.distance(weights).item()
    assert found.manifold_trace == 2 * problem.squared_gradients(retract(problem, weights)).item()


def test_trace_on_an_unreachable_manifold_is_nan():
    inputs = torch.ones(2, 3) / math.sqrt(3)
    assert math.isnan(sharpness(net_of(), inputs, torch.tensor([[0.0], [1.0]])).manifold_trace)


@pytest.mark.parametrize(
    "net",
    [
        net_of(bias=True),
        net_of(activation="tanh"),
        net_of(init=[Normal(0.3), Constant(2.0)]),
        MLP([3, 1], bias=False, init=Constant(1.0)),
        MLP([3, 4, 4, 1], bias=False, activation="cubic", init=Constant(1.0)),
        MLP([3, 4, 2], bias=False, activation="cubic", init=Constant(1.0)),
    ],
    ids=["bias", "tanh", "not-ones", "linear", "deep", "two-outputs"],
)
def test_other_networks_are_refused(net):
    with pytest.raises(ValueError, match="closed forms for"):
        sharpness(net, torch.zeros(2, 3), torch.zeros(2, 1))
