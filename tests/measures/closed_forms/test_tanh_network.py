"""Closed forms of Σ_j c_j tanh(w_j·x) against dense derivatives by autograd, and of Lemma 6 as it is written."""

import pytest
import torch

from lnsgd.measures import implicit_regularizer
from lnsgd.measures.closed_forms import TanhNetwork
from lnsgd.models import MLP
from lnsgd.rng import generator
from tests.tolerances import EXACT

UNITS = 4
SIZES = {"three-in-two": (3, 2), "one": (1, 3), "two-in-one": (2, 1)}


@pytest.fixture(params=SIZES.values(), ids=SIZES)
def case(request: pytest.FixtureRequest) -> tuple[TanhNetwork, torch.Tensor]:
    """Make two problems, with inputs whose norms differ from one, and weights."""
    examples, dimension = request.param
    draw = generator(0, "data", examples, dimension)
    shapes = ((2, examples, dimension), (2, examples), (2, UNITS, dimension + 1))
    inputs, targets, weights = (torch.randn(*shape, dtype=torch.float64, generator=draw) for shape in shapes)
    return TanhNetwork(inputs, targets), weights


def network(weights: torch.Tensor) -> MLP:
    net = MLP([weights.shape[1] - 1, len(weights), 1], bias=False, activation="tanh").double()
    with torch.no_grad():
        net.layers[0].weight.copy_(weights[:, :-1])
        net.layers[1].weight.copy_(weights[:, -1:].T)
    return net


def outputs(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute h(x_i) of one problem, unit by unit."""
    return sum(unit[-1] * torch.tanh(inputs @ unit[:-1]) for unit in weights)


def test_outputs_are_those_of_the_network(case):
    problem, weights = case
    for index, own in enumerate(weights):
        expected = network(own)(problem.inputs[index])[:, 0].detach()
        torch.testing.assert_close(problem.outputs(weights)[index], expected, **EXACT)
        torch.testing.assert_close(problem.residuals(weights)[index], expected - problem.targets[index], **EXACT)


def test_derivatives(case):
    problem, weights = case
    for index, own in enumerate(weights):
        inputs = problem.inputs[index]
        jacobian = torch.func.jacrev(lambda w: outputs(inputs, w))  # noqa: B023
        torch.testing.assert_close(problem.jacobian(weights)[index], jacobian(own), **EXACT)
        regularizer = problem.regularizer(weights)[index]
        torch.testing.assert_close(regularizer, jacobian(own).square().sum() / len(inputs), **EXACT)
        batches = [(inputs, problem.targets[index][:, None])]
        assert regularizer.item() == pytest.approx(implicit_regularizer(network(own), batches), rel=1e-10)
        gradient = torch.func.grad(lambda w: jacobian(w).square().sum() / len(inputs))(own)  # noqa: B023
        torch.testing.assert_close(problem.regularizer_gradient(weights)[index], gradient, **EXACT)


def test_the_gradient_is_twice_the_sum_in_lemma_6(case):
    """Σ_k E_i[h_i^{jk} h_i^k], term by term."""
    problem, weights = case
    for index, own in enumerate(weights):
        total = torch.zeros(own.numel(), dtype=torch.float64)
        for x in problem.inputs[index]:

            def one(flat: torch.Tensor) -> torch.Tensor:
                return outputs(x[None], flat.view_as(own))[0]  # noqa: B023

            hessian, slope = torch.func.hessian(one)(own.flatten()), torch.func.grad(one)(own.flatten())
            for j in range(own.numel()):
                total[j] += sum(hessian[j, k] * slope[k] for k in range(own.numel()))
        expected = 2 * total / problem.inputs.shape[1]
        torch.testing.assert_close(problem.regularizer_gradient(weights)[index].flatten(), expected, **EXACT)
