"""Curvature is computed in at least single precision, whatever the precision of the network."""

import copy

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, SquaredLoss
from lnsgd.measures import (
    example_gradient_norms,
    gradient_norm,
    hessian_trace,
    implicit_regularizer,
    spectral_density,
    top_eigenvalues,
)
from lnsgd.measures.precision import at_least_single, full_precision, single_precision_weights

HALF = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


class Small(nn.Module):
    """Convolution, BatchNorm, a tensor that two layers share, and one that is frozen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.norm.running_mean.normal_()

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.second(self.relu(self.first(x)))


def inputs_of(dtype):
    torch.manual_seed(1)
    return torch.randn(6, 2, 5, 5).to(dtype), torch.tensor([0, 1, 2, 0, 1, 2])


MEASURES = {
    "hessian-trace": lambda model, data: hessian_trace(model, CrossEntropy(), data, max_probes=50).total.value,
    "exact-trace": lambda model, data: hessian_trace(model, CrossEntropy(), data, method="exact").total.value,
    "gradient-norm": lambda model, data: gradient_norm(model, CrossEntropy(), data).total,
    "top-eigenvalue": lambda model, data: top_eigenvalues(model, CrossEntropy(), data).values.item(),
    "implicit-regularizer": implicit_regularizer,
    "spectral-density": lambda model, data: spectral_density(model, CrossEntropy(), data, steps=5).nodes.tolist(),
    "example-gradient-norms": lambda model, data: example_gradient_norms(model, CrossEntropy(), data).total.tolist(),
}


@HALF
@pytest.mark.parametrize("name", MEASURES)
def test_half_precision_weights_are_measured_as_float32(name, half):
    model = Small().to(half)
    inputs, labels = inputs_of(half)
    single = copy.deepcopy(model).float()
    expected = MEASURES[name](single, [(inputs.float(), labels)])
    assert MEASURES[name](model, [(inputs, labels)]) == expected  # the same operations on the same numbers
    assert {p.dtype for p in model.parameters()} == {half}


@pytest.mark.parametrize("name", MEASURES)
def test_autocast_is_turned_off(name):
    model, data = Small(), [inputs_of(torch.float32)]
    expected = MEASURES[name](model, data)
    with torch.autocast("cpu", torch.bfloat16):
        assert MEASURES[name](model, data) == expected
        assert torch.is_autocast_enabled("cpu")


def test_real_targets_in_half_precision():
    model, data = nn.Linear(2, 1).bfloat16(), [(torch.randn(4, 2).bfloat16(), torch.randn(4, 1).bfloat16())]
    expected = gradient_norm(copy.deepcopy(model).float(), SquaredLoss(), [tuple(t.float() for t in data[0])])
    assert gradient_norm(model, SquaredLoss(), data) == expected


@HALF
def test_the_same_tensors_are_put_back(half):
    model = Small().to(half)
    before = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    values = {name: value.detach().clone() for name, value in before.items()}
    with pytest.raises(KeyError), single_precision_weights(model):
        assert {t.dtype for t in (*model.parameters(), model.norm.running_mean)} == {torch.float32}
        assert model.norm.num_batches_tracked is before["norm.num_batches_tracked"]
        assert model.first.weight is model.second.weight
        assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["second.bias"]
        raise KeyError
    after = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    assert before.keys() == after.keys()
    assert all(after[name] is before[name] and torch.equal(after[name], values[name]) for name in before)


def test_single_and_double_precision_stay_as_they_are():
    for dtype in (torch.float32, torch.float64):
        model = Small().to(dtype)
        before = list(model.parameters())
        with single_precision_weights(model):
            assert all(now is then for now, then in zip(model.parameters(), before, strict=True))
    values = torch.ones(2, dtype=torch.float64), torch.ones(2), torch.ones(2, dtype=torch.int8), torch.tensor([True])
    assert all(at_least_single(value) is value for value in values)
    assert at_least_single(torch.ones(2).half()).dtype == torch.float32


@pytest.mark.parametrize(
    ("default", "inside"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_the_default_type_is_put_back(default, inside):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        with pytest.raises(KeyError), full_precision("cpu"):
            assert torch.zeros(1).dtype == inside
            raise KeyError
        assert torch.get_default_dtype() == default
    finally:
        torch.set_default_dtype(before)
