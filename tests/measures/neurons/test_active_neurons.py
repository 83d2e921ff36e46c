"""Active neurons against loops over examples, units and weights."""

import math

import pytest
import torch
from torch import nn

from lnsgd.measures import Firings, active_count, mean_active
from tests.reference.measures import conv_loop, linear_loop, mean_active_loop
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}

SPLITS = [
    pytest.param([24], id="one-batch"),
    pytest.param([8, 8, 8], id="equal-batches"),
    pytest.param([1, 20, 3], id="unequal-batches"),
    pytest.param([1] * 24, id="single-examples"),
]


def linear_layer():
    """Return a layer, data and the brute-force pre-activations."""
    torch.manual_seed(0)
    layer, inputs = nn.Linear(5, 7).double(), torch.randn(24, 5, dtype=torch.float64)
    return layer, inputs, linear_loop(inputs, layer.weight, layer.bias)


def conv_layer():
    """Return a convolution (3 channels of 4 × 3 positions), data and the brute-force pre-activations."""
    torch.manual_seed(1)
    layer, images = nn.Conv2d(2, 3, 3).double(), torch.randn(24, 2, 6, 5, dtype=torch.float64)
    return layer, images, conv_loop(images, layer.weight, layer.bias)


def firings_of(*batches):
    """Count the firings of all examples together."""
    firings = Firings(1, batches[0][0].numel())
    for preactivations in batches:
        firings.update(preactivations)
    return firings


LAYERS = [pytest.param(linear_layer, 7, id="linear"), pytest.param(conv_layer, 3 * 4 * 3, id="conv")]


@pytest.mark.parametrize(("make", "units"), LAYERS)
def test_function_equals_a_loop(make, units):
    layer, inputs, looped = make()
    assert len(looped[0]) == units
    assert mean_active(layer(inputs)) == pytest.approx(mean_active_loop(looped), **APPROX)


@pytest.mark.parametrize("sizes", SPLITS)
@pytest.mark.parametrize(("make", "units"), LAYERS)
def test_counts_equal_a_loop_however_the_data_is_split(make, units, sizes):
    layer, inputs, looped = make()
    firings = firings_of(*(layer(batch) for batch in inputs.split(sizes)))
    expected = mean_active_loop(looped)
    assert active_count(firings).count == pytest.approx(expected, **APPROX)
    assert active_count(firings).fraction == pytest.approx(expected / units, **APPROX)


def test_firings_count_the_examples_of_each_unit():
    firings = firings_of(torch.tensor([[1.0, -1.0, 2.0], [1.0, -1.0, -2.0]]), torch.tensor([[1.0, -1.0, -2.0]]))
    assert firings.fired.tolist() == [[3, 0, 1]]
    assert firings.examples.item() == 3


@pytest.mark.parametrize("zero", [0.0, -0.0], ids=["plus-zero", "minus-zero"])
def test_a_preactivation_of_zero_is_not_active(zero):
    preactivations = torch.tensor([[zero, 1.0], [zero, zero]])
    assert mean_active(preactivations) == 0.5
    assert active_count(firings_of(preactivations)).count == 0.5


def test_the_smallest_positive_preactivation_is_active():
    assert mean_active(torch.full((3, 2), torch.finfo(torch.float32).tiny)) == 2.0


def test_silent_and_always_active_layers():
    silent, busy = active_count(firings_of(-torch.ones(5, 4))), active_count(firings_of(torch.ones(5, 4)))
    assert (silent.count, silent.fraction) == (0.0, 0.0)
    assert (busy.count, busy.fraction) == (4.0, 1.0)


def test_nan_before_the_first_example_and_after_reset():
    firings = Firings(1, 4)
    assert math.isnan(active_count(firings).count)
    assert math.isnan(active_count(firings).fraction)
    firings.update(torch.ones(2, 4))
    firings.reset()
    assert math.isnan(active_count(firings).count)


def test_function_gives_nan_for_no_examples():
    assert math.isnan(mean_active(torch.empty(0, 4)))
