"""Dead neurons against loops over examples and units."""

import pytest
import torch
from torch import nn

from lnsgd.measures import Firings, dead_count
from tests.reference.measures import dead_loop, linear_loop

SPLITS = {"one-batch": [24], "equal": [8, 8, 8], "unequal": [1, 20, 3], "single": [1] * 24}


def layer_with_dead_units():
    torch.manual_seed(0)
    layer, inputs = nn.Linear(5, 9).double(), torch.randn(24, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.bias[:4] -= torch.tensor([0.5, 1.0, 3.0, 10.0])
    return layer, inputs


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
def test_equals_a_loop_however_the_data_is_split(sizes):
    layer, inputs = layer_with_dead_units()
    expected = dead_loop(linear_loop(inputs, layer.weight, layer.bias))
    firings = Firings(1, 9)
    for batch in inputs.split(sizes):
        firings.update(layer(batch))
    assert 0 < expected < 9
    assert dead_count(firings).count == expected
    assert type(dead_count(firings).count) is int
    assert dead_count(firings).fraction == expected / 9


def test_units_of_a_convolution_are_its_positions():
    torch.manual_seed(0)
    maps = torch.randn(4, 2, 3, 3) - 1
    firings = Firings(1, 18)
    firings.update(maps)
    assert dead_count(firings).count == dead_loop(maps.flatten(1).tolist())


def test_a_neuron_that_fires_once_is_not_dead():
    firings = Firings(1, 3)
    firings.update(torch.tensor([[-1.0, 0.0, -1.0]] * 50))
    assert dead_count(firings).count == 3
    firings.update(torch.tensor([[-1.0, -1.0, torch.finfo(torch.float32).tiny]]))
    assert dead_count(firings).count == 2


@pytest.mark.parametrize("zero", [0.0, -0.0], ids=["plus-zero", "minus-zero"])
def test_a_preactivation_of_zero_is_not_firing(zero):
    firings = Firings(1, 1)
    firings.update(torch.tensor([[zero]]))
    assert dead_count(firings).count == 1


def test_all_alive_and_after_reset():
    firings = Firings(1, 2)
    firings.update(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert dead_count(firings).count == 0
    firings.reset()
    firings.update(-torch.ones(1, 2))
    assert dead_count(firings).count == 2
