"""Dead neurons against loops over examples and units."""

import pytest
import torch
from torch import nn

from lnsgd.measures import DeadNeurons
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
    metric = DeadNeurons(9)
    for batch in inputs.split(sizes):
        metric.update(layer(batch))
    assert 0 < expected < 9
    assert metric.compute().item() == expected
    assert metric.compute().dtype == torch.int64


def test_units_of_a_convolution_are_its_positions():
    torch.manual_seed(0)
    maps = torch.randn(4, 2, 3, 3) - 1
    metric = DeadNeurons(18)
    metric.update(maps)
    assert metric.compute().item() == dead_loop(maps.flatten(1).tolist())


def test_one_firing_is_enough_to_live():
    metric = DeadNeurons(3)
    metric.update(torch.tensor([[-1.0, 0.0, -1.0]] * 50))
    assert metric.compute().item() == 3
    metric.update(torch.tensor([[-1.0, -1.0, torch.finfo(torch.float32).tiny]]))
    assert metric.compute().item() == 2


@pytest.mark.parametrize("zero", [0.0, -0.0], ids=["plus-zero", "minus-zero"])
def test_a_preactivation_of_zero_is_not_firing(zero):
    metric = DeadNeurons(1)
    metric.update(torch.tensor([[zero]]))
    assert metric.compute().item() == 1


def test_all_alive_and_after_reset():
    metric = DeadNeurons(2)
    metric.update(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert metric.compute().item() == 0
    metric.reset()
    metric.update(-torch.ones(1, 2))
    assert metric.compute().item() == 2
