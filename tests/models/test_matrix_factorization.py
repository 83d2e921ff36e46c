"""The factorized matrix: outputs and gradients against their definition, where it starts, what it refuses."""

import pytest
import torch
from torch import nn

from lnsgd.models import MatrixFactorization
from lnsgd.replicas import StackedNetwork
from lnsgd.rng import forked
from tests.tolerances import STANDARD_ERRORS


def drawn(size: int = 4, rank: int | None = None, examples: int = 3) -> tuple[MatrixFactorization, torch.Tensor]:
    """Return a network with random weights, and measurement matrices, in float64."""
    generator = torch.Generator().manual_seed(0)
    net = MatrixFactorization(size, rank).double()
    nn.init.normal_(net.factor, generator=generator)
    return net, torch.randn(examples, size, size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("rank", [None, 2], ids=["full", "rank-two"])
def test_an_output_is_the_inner_product_with_the_product(rank):
    net, inputs = drawn(rank=rank)
    u = net.factor.detach()
    expected = [[sum(a[i, j] * u[i] @ u[j] for i in range(4) for j in range(4)).item()] for a in inputs]
    torch.testing.assert_close(net(inputs), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net.product(), u @ u.T)


def test_the_gradient_is_the_formula_of_the_docstring():
    net, inputs = drawn()
    net(inputs[:1]).backward()
    expected = (inputs[0] + inputs[0].T) @ net.factor
    torch.testing.assert_close(net.factor.grad, expected.detach(), rtol=1e-12, atol=1e-12)


def test_reset_puts_the_factor_at_the_identity():
    net = MatrixFactorization(3)
    assert torch.equal(net.factor, torch.eye(3))
    nn.init.ones_(net.factor)
    net.reset_parameters()
    assert torch.equal(net.factor, torch.eye(3))
    assert torch.equal(MatrixFactorization(3, 2).factor, torch.eye(3)[:, :2])


def test_a_gaussian_factor_has_the_identity_as_mean_product():
    with forked(0, "init"):
        nets = [MatrixFactorization(4, 3, init="gaussian") for _ in range(4000)]
    products = torch.stack([net.product().detach() for net in nets])
    error = products.std(0) / len(nets) ** 0.5
    assert ((products.mean(0) - torch.eye(4)).abs() < STANDARD_ERRORS * error).all()
    with pytest.raises(ValueError, match="init = 'zeros' is unknown; choose identity or gaussian"):
        MatrixFactorization(4, init="zeros")


def test_replicas_compute_what_each_does_alone():
    net, inputs = drawn()
    stack = StackedNetwork(net, [0, 1])
    nn.init.normal_(stack.stacked_parameters()["factor"])
    outputs = stack(inputs, torch.arange(2))
    for replica in range(2):
        torch.testing.assert_close(outputs[replica], stack.replica(replica)(inputs))


@pytest.mark.parametrize(
    ("size", "rank", "message"),
    [
        (0, None, "MatrixFactorization: size = 0; it must be at least 1"),
        (3, 0, "MatrixFactorization: rank = 0; give 1 to 3, the size"),
        (3, 4, "MatrixFactorization: rank = 4; give 1 to 3, the size"),
    ],
)
def test_bad_sizes_are_refused(size, rank, message):
    with pytest.raises(ValueError, match=message):
        MatrixFactorization(size, rank)


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 3, 4), (2, 9)], ids=str)
def test_matrices_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match="MatrixFactorization: size = 3, but inputs are of shape"):
        MatrixFactorization(3)(torch.zeros(shape))
