"""Knots of a network's function: exact, against the network itself."""

import numpy as np
import pytest
import torch
from torch import nn

from lnsgd.measures.geometry import polyline
from lnsgd.models import MLP, Normal
from tests.tolerances import EXACT

KINDS = {
    "plain": {},
    "skip": {"skip": True},
    "no-bias": {"bias": False},
    "skip-no-bias": {"skip": True, "bias": False},
    "frozen": {"train_layers": [0]},
}


def network(hidden: int = 9, **options) -> MLP:
    torch.manual_seed(hidden)
    net = MLP([1, hidden, 1], init=Normal(1.0, biases=True), **options).double()
    if net.skip is not None:
        nn.init.normal_(net.skip.weight)
    return net


@pytest.mark.parametrize("hidden", [1, 9, 60])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_interpolated_knots_are_the_network(options, hidden):
    net = network(hidden, **options)
    x, y = polyline(net, -1.5, 2.0)
    assert (x[0], x[-1]) == (-1.5, 2.0)
    assert (np.diff(x) > 0).all()
    grid = np.linspace(-1.5, 2.0, 5001)
    expected = net(torch.tensor(grid).unsqueeze(1)).detach().numpy()[:, 0]
    np.testing.assert_allclose(np.interp(grid, x, y), expected, **EXACT)


def test_knots_are_the_kinks_within_the_interval():
    net = network(4)
    net.layers[0].weight.data[:] = torch.tensor([[1.0], [-2.0], [1.0], [0.0]])
    net.layers[0].bias.data[:] = torch.tensor([0.5, 0.5, 3.0, 1.0])  # kinks at −1/2, 1/4 and −3; the last has none
    assert polyline(net)[0].tolist() == [-1.0, -0.5, 0.25, 1.0]


def test_two_units_with_one_kink_give_one_knot():
    net = network(2)
    net.layers[0].weight.data[:] = torch.tensor([[1.0], [-3.0]])
    net.layers[0].bias.data.zero_()
    assert polyline(net)[0].tolist() == [-1.0, 0.0, 1.0]


def test_single_precision_is_measured_in_double():
    x, y = polyline(network().float())
    assert x.dtype == y.dtype == np.float64


def test_the_network_is_not_changed():
    net = network()
    before = {name: p.clone() for name, p in net.named_parameters()}
    net.train()
    polyline(net)
    assert net.training
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in net.named_parameters())


@pytest.mark.parametrize(
    "net",
    [MLP([2, 3, 1]), MLP([1, 3, 2]), MLP([1, 3, 3, 1]), MLP([1, 1]), MLP([1, 3, 1], activation="tanh")],
    ids=["two-inputs", "two-outputs", "two-hidden-layers", "linear", "tanh"],
)
def test_other_networks_are_refused(net):
    with pytest.raises(ValueError, match="polyline: widths"):
        polyline(net)


@pytest.mark.parametrize("interval", [(1.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_an_interval_without_a_length_is_refused(interval):
    with pytest.raises(ValueError, match="polyline: from low"):
        polyline(network(), *interval)
