"""Distance from initialization against flat vectors."""

import pytest
import torch
from torch import nn

from lnsgd.measures import distance_from_init, trainable_parameters
from lnsgd.models import MLP
from tests.reference.measures import flat_distance
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}


def two_points(dtype=torch.float64, model=None):
    """Return a model's parameters at two points, by name."""
    torch.manual_seed(0)
    model = (model or MLP([5, 4, 3])).to(dtype)
    start = {name: p.clone() for name, p in trainable_parameters(model).items()}
    for p in model.parameters():
        p.data += torch.randn_like(p)
    return trainable_parameters(model), start


# In float32 the difference is taken and summed in float64 too: the reference holds to the same digits.
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_total_and_each_tensor_equal_flat_vectors(dtype):
    now, start = two_points(dtype)
    distance = distance_from_init(now, start)
    assert distance.total == pytest.approx(flat_distance(now.values(), start.values()), **APPROX)
    assert list(distance.per_tensor) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    for name, found in distance.per_tensor.items():
        assert found == pytest.approx(flat_distance([now[name]], [start[name]]), **APPROX)


def test_squares_of_the_tensors_sum_to_that_of_the_total():
    distance = distance_from_init(*two_points())
    assert sum(d**2 for d in distance.per_tensor.values()) == pytest.approx(distance.total**2, **APPROX)


def test_zero_at_the_start_only():
    now, start = two_points()
    assert distance_from_init(start, start).total == 0.0
    assert all(d > 0 for d in distance_from_init(now, start).per_tensor.values())


def test_convolution_and_batch_norm_parameters_count_and_buffers_do_not():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    now, start = two_points(model=model)
    assert set(now) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    expected = flat_distance(now.values(), start.values())
    assert distance_from_init(now, start).total == pytest.approx(expected, **APPROX)


def test_frozen_parameters_are_left_out():
    net = MLP([5, 4, 3], train_layers=[1])
    found = trainable_parameters(net)
    assert set(found) == {"layers.1.weight", "layers.1.bias"}
    now, start = two_points(model=net)  # moves all layers, the frozen one too
    expected = flat_distance(now.values(), start.values())
    assert distance_from_init(now, start).total == pytest.approx(expected, **APPROX)


def test_trainable_parameters_are_detached_and_live():
    net = MLP([5, 4, 3])
    found = trainable_parameters(net)
    net.layers[0].weight.data.fill_(7.0)
    assert not any(p.requires_grad for p in found.values())
    assert found["layers.0.weight"].unique().tolist() == [7.0]


def test_other_tensors_of_the_start_are_ignored():
    now, start = two_points()
    more = {**start, "extra": torch.ones(3)}
    assert distance_from_init(now, more) == distance_from_init(now, start)


def test_a_tensor_missing_from_the_start_raises():
    now, start = two_points()
    del start["layers.0.bias"]
    with pytest.raises(ValueError, match=r"no tensor 'layers\.0\.bias'"):
        distance_from_init(now, start)


def test_another_shape_raises_also_where_it_would_broadcast():
    now, start = two_points()
    start["layers.0.bias"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"layers\.0\.bias is \(4,\), but \(1,\)"):
        distance_from_init(now, start)


@pytest.mark.parametrize(
    "model",
    [MLP([3, 2]).requires_grad_(False), nn.Sequential(nn.ReLU())],
    ids=["all-frozen", "no-parameters"],
)
def test_no_trainable_parameter_raises(model):
    with pytest.raises(ValueError, match="no trainable parameter"):
        trainable_parameters(model)
