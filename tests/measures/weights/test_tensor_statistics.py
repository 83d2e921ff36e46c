"""Norms and bias statistics against loops over the entries."""

import math

import pytest
import torch
from torch import nn

from lnsgd.measures import TensorStatistics, tensor_statistics
from lnsgd.models import MLP
from tests.reference.measures import statistics_loop
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}

TENSORS = {
    "vector": torch.tensor([0.5, -2.0, 1.0]),
    "matrix": torch.randn(7, 5, generator=torch.Generator().manual_seed(0)),
    "filters": torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1)),
    "negative": -torch.rand(6, generator=torch.Generator().manual_seed(2)) - 0.1,
    "one-number": torch.tensor([-3.0]),
    "zeros": torch.zeros(2, 2),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_a_loop(name, dtype):
    tensor = TENSORS[name].to(dtype)
    found = tensor_statistics({"t": tensor})["t"]
    norm, mean, largest = statistics_loop(tensor)
    assert (found.norm, found.mean) == (pytest.approx(norm, **APPROX), pytest.approx(mean, **APPROX))
    assert found.largest == largest


def test_of_every_tensor_of_a_network_by_name():
    net = MLP([4, 3, 2])
    found = tensor_statistics(dict(net.named_parameters()))
    assert list(found) == [name for name, _ in net.named_parameters()]
    whole = nn.utils.parameters_to_vector(net.parameters()).double().norm().item()
    assert math.sqrt(sum(of.norm**2 for of in found.values())) == pytest.approx(whole, **APPROX)


def test_summed_in_float64():
    # In float32 the squares of these overflow, and 2²⁴ + 1 is 2²⁴.
    assert tensor_statistics({"t": torch.full((4,), 1e30)})["t"].norm == pytest.approx(2e30, rel=1e-6)
    assert tensor_statistics({"t": torch.tensor([2.0**24, 1.0])})["t"].mean == (2**24 + 1) / 2


def test_needs_no_gradient_and_leaves_none():
    layer = nn.Linear(3, 2)
    tensor_statistics(dict(layer.named_parameters()))
    assert layer.weight.grad is None
    assert layer.weight.requires_grad


def test_nan_is_not_hidden():
    found = tensor_statistics({"t": torch.tensor([1.0, float("nan")])})["t"]
    assert all(math.isnan(value) for value in (found.norm, found.mean, found.largest))


def test_no_tensors_give_no_statistics():
    assert tensor_statistics({}) == {}


def test_numbers_computed_by_hand():
    assert tensor_statistics({"b": torch.tensor([3.0, -4.0])})["b"] == TensorStatistics(5.0, -0.5, 3.0)
