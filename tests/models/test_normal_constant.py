"""Initializers of the networks of theory: N(0, std²), and a constant."""

import pytest
import torch
from scipy import stats
from torch import nn

from lnsgd.models import Constant, Normal
from lnsgd.rng import generator
from tests.tolerances import STANDARD_ERRORS

RARE = stats.norm.sf(STANDARD_ERRORS)


@pytest.mark.parametrize("biases", [True, False])
def test_normal_has_its_standard_deviation(biases):
    layer = nn.Linear(50, 200)
    Normal(0.3, biases=biases)(layer, generator(0, "init"))
    weight = layer.weight.detach().numpy().ravel()
    assert RARE < stats.kstest(weight / 0.3, "norm").pvalue < 1 - RARE
    if biases:
        assert RARE < stats.kstest(layer.bias.detach().numpy() / 0.3, "norm").pvalue < 1 - RARE
    else:
        assert (layer.bias == 0).all()


def test_normal_draws_from_the_generator_it_is_given():
    layers = [nn.Linear(4, 3) for _ in range(2)]
    state = torch.get_rng_state()
    for layer in layers:
        Normal(1.0)(layer, generator(5, "init"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(layers[0].weight, layers[1].weight)


@pytest.mark.parametrize("bias", [True, False])
def test_constant(bias):
    layer = nn.Linear(5, 2, bias=bias)
    state = torch.get_rng_state()
    Constant(-1.5)(layer)
    assert torch.equal(torch.get_rng_state(), state)
    assert (layer.weight == -1.5).all()
    assert not bias or (layer.bias == 0).all()
    assert layer.weight.requires_grad


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_bad_arguments_are_refused(std):
    with pytest.raises(ValueError, match=f"Normal: std = {std}"):
        Normal(std)
