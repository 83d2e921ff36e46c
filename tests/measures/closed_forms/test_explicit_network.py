"""Active neurons of a network whose count is known: one that solves the hypercube problem by construction.

Outer points have ‖x‖∞ = 1, inner ones ‖x‖∞ = 1 − ε (Cornacchia et al., section 6). A coordinate beyond a threshold
t ∈ [1 − ε, 1) proves that a point is an outer one, so 2d hidden neurons suffice, relu(x_i − t) and relu(−x_i − t)
for each i, and N(x) = Σ (their outputs) − (1 − t)/2.

* An inner point has |x_i| ≤ 1 − ε ≤ t: no neuron is active and N(x) = −(1 − t)/2 < 0.
* An outer point has one coordinate at ±1, whose neuron gives 1 − t: N(x) ≥ (1 − t)/2 > 0. Each of the other d − 1
  coordinates is uniform on [−1, 1] and activates one neuron with P(|x_i| > t) = 1 − t, so the number of active
  neurons is 1 + Binomial(d − 1, 1 − t), with mean 1 + (d − 1)(1 − t).

Over both classes, each of probability ½, that is (1 + (d − 1)(1 − t))/2 active neurons; at t = 1 − ε, the smallest
threshold that works and the largest count, (1 + (d − 1)ε)/2: 9.35 of 120 for d = 60, ε = 0.3, of which outer points
have 18.7 and inner ones none. The count that the paper gives for its explicit network is not compared with: its
wording is not at hand, and another construction or another mean over the two classes would give another number.
"""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from lnsgd.data import Hypercube
from lnsgd.losses import HingeLoss, predicted_classes
from lnsgd.measures import Firings, activation_sites, active_count, mean_active, observe, performance
from lnsgd.models import MLP
from tests.tolerances import STANDARD_ERRORS

DIMENSION, EPSILON, SIZE = 60, 0.3, 20_000

# How far the threshold lies above 1 − ε. At 0 inner points come to the very edge of their neurons, and stay silent
# there because x_i − t is exact: both are the same number of float32.
MARGINS = pytest.mark.parametrize("margin", [0.0, 0.01, 0.2])


def explicit_network(margin: float) -> MLP:
    net = MLP([DIMENSION, 2 * DIMENSION, 1])
    threshold = 1 - EPSILON + margin
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.cat([torch.eye(DIMENSION), -torch.eye(DIMENSION)]))
        net.layers[0].bias.fill_(-threshold)
        net.layers[1].weight.fill_(1.0)
        net.layers[1].bias.fill_(-(1 - threshold) / 2)
    return net


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Tensor]:
    data = Hypercube(DIMENSION, EPSILON, train_size=SIZE, test_size=1)
    data.setup()
    return data.splits["train"].inputs, data.splits["train"].labels


def preactivations(net: MLP, inputs: Tensor) -> Tensor:
    found: list[Tensor] = []
    with torch.no_grad(), observe(activation_sites(net), lambda name, values: found.append(values.clone())):
        net(inputs)
    (hidden,) = found
    return hidden


def in_batches(inputs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(inputs.split(777), labels.split(777))


@MARGINS
def test_the_network_makes_no_error(margin, drawn):
    found = performance(explicit_network(margin), HingeLoss(beta=0), in_batches(*drawn))
    assert (found.error, found.loss) == (0.0, 0.0)


@MARGINS
def test_margin_is_half_of_the_distance_beyond_the_threshold(margin, drawn):
    inputs, labels = drawn
    with torch.no_grad():
        outputs = explicit_network(margin)(inputs)
    assert torch.equal(predicted_classes(outputs), labels)
    assert outputs.abs().min().item() == pytest.approx((EPSILON - margin) / 2, rel=1e-5)


@MARGINS
def test_inner_points_activate_no_neuron(margin, drawn):
    inputs, labels = drawn
    assert mean_active(preactivations(explicit_network(margin), inputs[labels == 0])) == 0


@MARGINS
def test_outer_points_activate_one_neuron_and_others_by_chance(margin, drawn):
    inputs, labels = drawn
    hidden = preactivations(explicit_network(margin), inputs[labels == 1])
    beyond = EPSILON - margin
    expected = 1 + (DIMENSION - 1) * beyond
    error = math.sqrt((DIMENSION - 1) * beyond * (1 - beyond) / len(hidden))
    assert abs(mean_active(hidden) - expected) < STANDARD_ERRORS * error
    assert (hidden > 0).sum(1).min() >= 1
    variance = (hidden > 0).sum(1).double().var().item()  # that of the binomial distribution, to its relative error
    assert variance == pytest.approx(len(hidden) * error**2, rel=STANDARD_ERRORS * math.sqrt(2 / len(hidden)) * 1.1)


@MARGINS
def test_the_measure_finds_the_mean_over_both_classes(margin, drawn):
    inputs, _ = drawn
    hidden = preactivations(explicit_network(margin), inputs)
    outer = 1 + (DIMENSION - 1) * (EPSILON - margin)
    # A mixture of 0 and of 1 + Binomial, ½ each: the variance is half the binomial's plus a quarter of outer².
    beyond = EPSILON - margin
    error = math.sqrt(((DIMENSION - 1) * beyond * (1 - beyond) / 2 + outer**2 / 4) / SIZE)
    firings = Firings(1, 2 * DIMENSION)
    for batch in hidden.split(777):
        firings.update(batch)
    active = active_count(firings)
    assert abs(active.count - outer / 2) < STANDARD_ERRORS * error
    assert active.count == pytest.approx(mean_active(hidden), rel=1e-12)
    assert active.fraction == pytest.approx(active.count / (2 * DIMENSION), rel=1e-12)


def test_every_neuron_is_active_equally_often(drawn):
    """½ · (1/(2d) at its face + (d − 1)/d · ε/2 by chance) of all points; two of a coordinate exclude each other."""
    hidden = preactivations(explicit_network(0.0), drawn[0])
    firings = Firings(1, 2 * DIMENSION)
    firings.update(hidden)
    expected = (1 / (2 * DIMENSION) + (DIMENSION - 1) / DIMENSION * EPSILON / 2) / 2
    error = math.sqrt(expected * (1 - expected) / SIZE)
    deviates = (firings.fired[0].numpy() / SIZE - expected) / error
    assert np.abs(deviates).max() < STANDARD_ERRORS + 1  # the largest of 120
    assert not ((hidden[:, :DIMENSION] > 0) & (hidden[:, DIMENSION:] > 0)).any()
