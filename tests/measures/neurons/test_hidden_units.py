"""Hidden units against a sum over units by hand."""

import pytest
import torch

from lnsgd.measures import hidden_units
from lnsgd.models import MLP
from tests.tolerances import EXACT

ACTIVATIONS = {"tanh": torch.tanh, "logistic": lambda z: 1 / (1 + torch.exp(-z)), "relu": lambda z: z.clamp(min=0)}


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_a_sum_unit_by_unit(activation, bias):
    net = MLP([3, 5, 1], activation=activation, bias=bias).double()
    inputs = torch.randn(4, 3, dtype=torch.float64)
    units = hidden_units(net, inputs)
    shift = net.layers[0].bias if bias else torch.zeros(5, dtype=torch.float64)
    for i in range(4):
        for j in range(5):
            z = sum(net.layers[0].weight[j, k] * inputs[i, k] for k in range(3)) + shift[j]
            torch.testing.assert_close(units.activations[i, j], ACTIVATIONS[activation](z).detach(), **EXACT)
    assert torch.equal(units.output_weights, net.layers[1].weight.detach()[0])
    outputs = units.activations @ units.output_weights + (net.layers[1].bias if bias else 0)
    torch.testing.assert_close(outputs, net(inputs)[:, 0], **EXACT)


def test_the_network_is_not_changed_and_results_are_detached():
    net = MLP([2, 3, 1]).train()
    before = [p.clone() for p in net.parameters()]
    units = hidden_units(net, torch.ones(1, 2))
    assert net.training
    assert not units.activations.requires_grad
    assert not units.output_weights.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))


@pytest.mark.parametrize("widths", [[3, 1], [3, 4, 4, 1], [3, 4, 2]], ids=str)
def test_other_networks_are_refused(widths):
    with pytest.raises(ValueError, match=r"widths = .*one hidden layer and one output"):
        hidden_units(MLP(widths), torch.ones(1, 3))
