"""The minimal regularizer against a linear program and against the regularizer of networks."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from lnsgd.measures import implicit_regularizer
from lnsgd.measures.closed_forms import minimal_regularizer
from lnsgd.models import MLP
from tests.tolerances import EXACT

ZIGZAG = np.interp(np.linspace(-1, 1, 12), [-1, -1 / 3, 1 / 3, 1], [-2 / 3, 2 / 3, -2 / 3, 2 / 3])


def price(inputs: np.ndarray, kink: float) -> float:
    """Return the cost of a unit with its kink at a place per change of slope, active on the cheaper side."""
    prices = []
    for side in (1, -1):
        seen = [x for x in inputs if side * (x - kink) > 1e-12]
        squares, weights = sum((x - kink) ** 2 for x in seen), sum(1 + x**2 for x in seen)
        prices.append(2 * np.sqrt(squares * weights) / len(inputs))
    return min(prices)


def program(inputs: np.ndarray, labels: np.ndarray, kinks: np.ndarray) -> float:
    """Minimize Σ|κ_k|·price over kinks κ_k, a slope and a constant such that the function goes through the points."""
    prices = [price(inputs, kink) for kink in kinks]
    bent = np.maximum(inputs[:, None] - kinks, 0)
    line = np.stack([inputs, np.ones_like(inputs)], 1)
    found = linprog(
        [*prices, *prices, *[0] * 4], A_eq=np.hstack([bent, -bent, line, -line]), b_eq=labels, method="highs"
    )
    assert found.status == 0
    return found.fun + 1 + np.mean(inputs**2)


def even(n: int) -> np.ndarray:
    return np.linspace(-1, 1, n)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 20])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_minimum_of_the_linear_program(n, seed):
    labels = np.random.default_rng(seed).normal(size=n)
    kinks = np.unique(np.concatenate([even(n), np.linspace(-1.2, 1.2, 500)]))
    assert minimal_regularizer(even(n), labels) == pytest.approx(program(even(n), labels, kinks), rel=1e-7)


def test_the_zigzag():
    kinks = np.unique(np.concatenate([even(12), np.linspace(-1, 1, 2001)]))
    assert minimal_regularizer(even(12), ZIGZAG) == pytest.approx(program(even(12), ZIGZAG, kinks), rel=1e-7)


def test_points_on_a_line_need_no_unit():
    x = even(7)
    assert minimal_regularizer(x, 3 * x - 1) == pytest.approx(1 + np.mean(x**2), rel=1e-12)


def test_the_order_of_the_points_does_not_matter():
    shuffled = np.random.default_rng(0).permutation(12)
    expected = minimal_regularizer(even(12), ZIGZAG)
    assert minimal_regularizer(even(12)[shuffled], ZIGZAG[shuffled]) == pytest.approx(expected, rel=1e-12)


def connecting(inputs: np.ndarray, labels: np.ndarray, outside: float) -> MLP:
    """Build the network that connects the points, with each kink a little outside its point and balanced weights."""
    changes = np.diff(np.diff(labels) / np.diff(inputs))
    turning = np.abs(changes) > 1e-9
    changes, kinks, sides = changes[turning], [], []
    for point in inputs[1:-1][turning]:
        both = {side: (point + side * outside, side) for side in (1, -1)}
        # On the far side of its point the unit does not see it.
        kink, side = min(both.values(), key=lambda one: _cost(inputs, *one))
        kinks.append(kink)
        sides.append(side)
    net = MLP([1, len(kinks), 1], skip=True).double()
    scales = [_balance(inputs, kink, side) for kink, side in zip(kinks, sides)]
    sizes = np.sqrt(np.abs(changes)) * np.array(scales)
    net.layers[0].weight.data[:, 0] = torch.tensor(np.array(sides) * sizes)
    net.layers[0].bias.data[:] = torch.tensor(-np.array(sides) * sizes * np.array(kinks))
    net.layers[1].weight.data[0] = torch.tensor(changes / sizes)
    # What is left is a line, but for the kinks being a little off.
    x = torch.tensor(inputs).unsqueeze(1)
    left = labels - (net(x).detach().numpy()[:, 0] - net.layers[1].bias.item())
    slope, constant = np.polyfit(inputs, left, 1)
    net.skip.weight.data.fill_(slope)
    net.layers[1].bias.data.fill_(constant)
    return net


def _seen(inputs: np.ndarray, kink: float, side: int) -> tuple[float, float]:
    seen = inputs[side * (inputs - kink) > 0]
    return ((seen - kink) ** 2).sum(), (1 + seen**2).sum()


def _cost(inputs: np.ndarray, kink: float, side: int) -> float:
    squares, weights = _seen(inputs, kink, side)
    return squares * weights


def _balance(inputs: np.ndarray, kink: float, side: int) -> float:
    squares, weights = _seen(inputs, kink, side)
    return (weights / squares) ** 0.25


def regularizer(net: nn.Module, inputs: np.ndarray) -> float:
    x = torch.tensor(inputs).unsqueeze(1)
    return implicit_regularizer(net, [(x, x)])


def test_networks_come_arbitrarily_close():
    x = even(12)
    least = minimal_regularizer(x, ZIGZAG)
    gaps = []
    for outside in (1e-3, 1e-5):
        net = connecting(x, ZIGZAG, outside)
        fitted = net(torch.tensor(x).unsqueeze(1)).detach().numpy()[:, 0]
        np.testing.assert_allclose(fitted, ZIGZAG, atol=10 * outside)
        gaps.append(abs(regularizer(net, x) - least))
    assert gaps[1] < gaps[0] / 10 < 1e-2
    assert gaps[1] < 1e-3


@pytest.mark.parametrize("seed", range(10))
def test_no_network_through_the_points_has_a_smaller_regularizer(seed):
    torch.manual_seed(seed)
    x = even(6)
    net = MLP([1, 8, 1], skip=True).double()
    for p in net.parameters():
        nn.init.normal_(p)
    labels = net(torch.tensor(x).unsqueeze(1)).detach().numpy()[:, 0]
    assert regularizer(net, x) >= minimal_regularizer(x, labels) * (1 - EXACT["rtol"])


def test_points_without_a_closed_form_are_refused():
    """The optimal function through two clusters with a gap between them has a kink in the gap."""
    clustered = np.concatenate([np.linspace(-1, -0.91, 10), [0], np.linspace(0.91, 1, 10)])
    with pytest.raises(ValueError, match=r"no closed form for the points \[-1.0, -0.99"):
        minimal_regularizer(clustered, clustered)
    kinks = np.unique(np.concatenate([clustered, np.linspace(-1, 1, 4001)]))
    labels = np.minimum(clustered + 0.91, 0) + np.minimum(0, -clustered)
    changes = np.abs(np.diff(np.diff(labels) / np.diff(clustered)))
    connected = 1 + np.mean(clustered**2) + changes @ [price(clustered, x) for x in clustered[1:-1]]
    assert program(clustered, labels, kinks) < connected - 1e-3
