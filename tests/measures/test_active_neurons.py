"""Active neurons against loops over examples, units and weights."""

import math

import pytest
import torch
from torch import nn

from lnsgd.measures import ActiveNeurons, active_neurons
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
    """A layer, data and the brute-force pre-activations."""
    torch.manual_seed(0)
    layer, inputs = nn.Linear(5, 7).double(), torch.randn(24, 5, dtype=torch.float64)
    return layer, inputs, linear_loop(inputs, layer.weight, layer.bias)


def conv_layer():
    """The same for a convolution: 3 channels of 4 × 3 positions."""
    torch.manual_seed(1)
    layer, images = nn.Conv2d(2, 3, 3).double(), torch.randn(24, 2, 6, 5, dtype=torch.float64)
    return layer, images, conv_loop(images, layer.weight, layer.bias)


LAYERS = [pytest.param(linear_layer, 7, id="linear"), pytest.param(conv_layer, 3 * 4 * 3, id="conv")]


@pytest.mark.parametrize(("make", "units"), LAYERS)
def test_function_equals_a_loop(make, units):
    layer, inputs, looped = make()
    assert len(looped[0]) == units
    assert active_neurons(layer(inputs)) == pytest.approx(mean_active_loop(looped), **APPROX)


@pytest.mark.parametrize("sizes", SPLITS)
@pytest.mark.parametrize(("make", "units"), LAYERS)
def test_metric_equals_a_loop_however_the_data_is_split(make, units, sizes):
    layer, inputs, looped = make()
    metric = ActiveNeurons(units)
    for batch in inputs.split(sizes):
        metric.update(layer(batch))
    expected = mean_active_loop(looped)
    assert metric.compute().count == pytest.approx(expected, **APPROX)
    assert metric.compute().fraction == pytest.approx(expected / units, **APPROX)


def test_metric_knows_how_often_each_unit_fired():
    metric = ActiveNeurons(3)
    metric.update(torch.tensor([[1.0, -1.0, 2.0], [1.0, -1.0, -2.0]]))
    metric.update(torch.tensor([[1.0, -1.0, -2.0]]))
    assert metric.fired.tolist() == [3, 0, 1]
    assert metric.examples.item() == 3


@pytest.mark.parametrize("zero", [0.0, -0.0], ids=["plus-zero", "minus-zero"])
def test_a_preactivation_of_zero_is_not_active(zero):
    preactivations = torch.tensor([[zero, 1.0], [zero, zero]])
    metric = ActiveNeurons(2)
    metric.update(preactivations)
    assert active_neurons(preactivations) == 0.5
    assert metric.compute().count == 0.5


def test_the_smallest_positive_preactivation_is_active():
    assert active_neurons(torch.full((3, 2), torch.finfo(torch.float32).tiny)) == 2.0


def test_silent_and_always_active_layers_give_the_ends_of_the_range():
    silent, busy = ActiveNeurons(4), ActiveNeurons(4)
    silent.update(-torch.ones(5, 4))
    busy.update(torch.ones(5, 4))
    assert (silent.compute().count, silent.compute().fraction) == (0.0, 0.0)
    assert (busy.compute().count, busy.compute().fraction) == (4.0, 1.0)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nan_before_the_first_example_and_after_reset():
    metric = ActiveNeurons(4)
    assert math.isnan(metric.compute().count)
    assert math.isnan(metric.compute().fraction)
    metric.update(torch.ones(2, 4))
    metric.reset()
    assert math.isnan(metric.compute().count)


def test_function_gives_nan_for_no_examples():
    assert math.isnan(active_neurons(torch.empty(0, 4)))
