"""Spectral norms and products of norms against NumPy's decomposition and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lnsgd.measures import norm_products
from lnsgd.models import MLP, ResNet20

CLOSE = {"rel": 1e-12, "abs": 0.0}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def orthogonal(n: int) -> torch.Tensor:
    return torch.linalg.qr(drawn(n, n)).Q


SHAPES = [[(7, 5)], [(5, 7), (3, 5), (1, 3)], [(1, 9)], [(40, 40), (40, 40), (40, 40)]]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_norms_equal_those_of_numpy(shapes):
    matrices = {f"layer {i}": drawn(*shape) for i, shape in enumerate(shapes)}
    decomposed = [np.linalg.svd(matrix.numpy(), compute_uv=False) for matrix in matrices.values()]
    found = norm_products(matrices)
    assert list(found.spectral_norms) == list(matrices)
    assert list(found.spectral_norms.values()) == pytest.approx([values[0] for values in decomposed], **CLOSE)
    assert found.spectral == pytest.approx(np.prod([values[0] for values in decomposed]), **CLOSE)
    frobenius = [np.sqrt(np.square(values).sum()) for values in decomposed]
    assert found.frobenius == pytest.approx(np.prod(frobenius), **CLOSE)


def test_multiples_of_orthogonal_matrices():
    n, factors = 12, (0.5, -3.0, 4.0)
    found = norm_products({str(a): a * orthogonal(n) for a in factors})
    assert found.spectral_norms == pytest.approx({str(a): abs(a) for a in factors}, **CLOSE)
    assert found.spectral == pytest.approx(6.0, **CLOSE)
    assert found.frobenius == pytest.approx(6.0 * math.sqrt(n) ** 3, **CLOSE)


@pytest.mark.parametrize("width", [3, 20, 45])
def test_a_matrix_of_ones(width):
    found = norm_products({"w": torch.ones(width, 2 * width)})
    assert found.spectral == pytest.approx(width * math.sqrt(2), **CLOSE)
    assert found.spectral == pytest.approx(found.frobenius, **CLOSE)  # rank one


def test_biases_do_not_count():
    net = MLP([6, 5, 4, 3])
    parameters = dict(net.named_parameters())
    weights = {name: parameter for name, parameter in parameters.items() if name.endswith("weight")}
    assert norm_products(parameters) == norm_products(weights)
    assert set(norm_products(parameters).spectral_norms) == set(weights)
    assert len(weights) == 3


def test_the_product_bounds_a_linear_network():
    net = nn.Sequential(*(nn.Linear(9, 9, bias=False) for _ in range(4))).double()
    found = norm_products(dict(net.named_parameters()))
    whole = torch.linalg.multi_dot([layer.weight for layer in net])
    assert np.linalg.norm(whole.detach().numpy(), 2) <= found.spectral <= found.frobenius


def test_filters_of_convolutions_are_not_matrices():
    parameters = dict(ResNet20(width=2).named_parameters())
    found = norm_products(parameters)
    assert list(found.spectral_norms) == ["linear.weight"]
    expected = np.linalg.norm(parameters["linear.weight"].detach().double().numpy(), 2)
    assert found.spectral_norms["linear.weight"] == pytest.approx(expected, **CLOSE)
    assert math.isnan(found.spectral)
    assert math.isnan(found.frobenius)


@pytest.mark.parametrize("parameters", [{}, {"bias": torch.ones(3)}], ids=["nothing", "only-a-bias"])
def test_the_product_of_no_matrices_is_nan(parameters):
    found = norm_products(parameters)
    assert found.spectral_norms == {}
    assert math.isnan(found.spectral)
    assert math.isnan(found.frobenius)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_give_nan(value):
    found = norm_products({"good": 2 * torch.eye(2), "bad": torch.tensor([[1.0, value]])})
    assert found.spectral_norms["good"] == 2
    assert math.isnan(found.spectral_norms["bad"])
    assert math.isnan(found.spectral)
    assert not math.isfinite(found.frobenius)


@pytest.mark.parametrize(
    ("exponents", "product"),
    [
        ([150] * 3, math.inf),
        ([150, 150, 150, -150, -150, -150], 1.0),
        ([-150, -150, -150, 150, 150, 150], 1.0),
        ([150, 150, 150, -300], 1e150),
        ([-100] * 4, 0.0),
    ],
    ids=str,
)
def test_only_a_product_that_is_itself_too_large_overflows(exponents, product):
    found = norm_products({str(i): 10.0**e * torch.eye(1).double() for i, e in enumerate(exponents)})
    assert found.spectral == pytest.approx(product, rel=1e-12, abs=0)


def test_a_layer_of_zeros_makes_the_product_zero():
    found = norm_products({"a": drawn(4, 3), "b": torch.zeros(2, 4)})
    assert (found.spectral_norms["b"], found.spectral, found.frobenius) == (0, 0, 0)


def test_half_precision_is_measured_in_float64():
    matrix = drawn(8, 6).half()
    expected = np.linalg.norm(matrix.double().numpy(), 2)
    assert norm_products({"w": matrix}).spectral == pytest.approx(expected, **CLOSE)


def test_leaves_no_gradient():
    layer = nn.Linear(3, 2)
    norm_products(dict(layer.named_parameters()))
    assert layer.weight.grad is None
    assert layer.weight.requires_grad
