"""Singular values and rank of matrices that were built with known ones; features against a plain forward pass."""

import math

import pytest
import torch
from torch import nn

from lnsgd.measures import effective_rank, features, singular_values
from lnsgd.models import MLP
from lnsgd.rng import generator
from tests.tolerances import EXACT


def orthonormal(rows: int, columns: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(rows, columns, dtype=torch.float64, generator=generator(seed, "data"))
    return torch.linalg.qr(drawn).Q


@pytest.mark.parametrize("transposed", [False, True])
def test_known_singular_values(transposed):
    known = torch.tensor([7.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    matrix = orthonormal(9, 4, 0) @ known.diag() @ orthonormal(6, 4, 1).T
    matrix = matrix.T if transposed else matrix
    expected = torch.cat([known, torch.zeros(2, dtype=torch.float64)])
    torch.testing.assert_close(singular_values(matrix), expected, rtol=EXACT["rtol"], atol=1e-12)


def test_single_precision_is_measured_in_double():
    assert singular_values(torch.ones(2, 3)).dtype == torch.float64


def test_a_matrix_that_has_diverged_has_no_singular_values():
    assert singular_values(torch.tensor([[1.0, math.inf], [0.0, 1.0]])).isnan().tolist() == [True, True]
    assert math.isnan(effective_rank([math.nan, 1.0]))


@pytest.mark.parametrize(
    ("values", "tolerance", "rank"),
    [([3.0, 0.2, 0.02], 0.01, 2), ([3.0, 0.2, 0.02], 0.001, 3), ([0.02, 3.0, 0.2], 0.1, 1), ([0.0, 0.0], 0.5, 0)],
)
def test_effective_rank(values, tolerance, rank):
    assert effective_rank(values, tolerance) == effective_rank(torch.tensor(values), tolerance) == rank


def test_features_are_the_outputs_of_the_activations():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MLP([3, 5, 4, 1], activation="tanh").train()
    x = torch.randn(7, 3, generator=generator(0, "data"))
    found = features(net, [(x[:4], torch.zeros(4)), (x[4:], torch.zeros(3))])
    first = torch.tanh(net.layers[0](x))
    assert list(found) == ["activations.0", "activations.1"]
    torch.testing.assert_close(found["activations.0"], first)
    torch.testing.assert_close(found["activations.1"], torch.tanh(net.layers[1](first)))
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert list(features(net, [(x, x)], ["*.1"])) == ["layers.1", "activations.1"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: singular_values(torch.ones(3)), r"shape \(3,\)"),
        (lambda: effective_rank([1.0], tolerance=1.0), "tolerance = 1.0"),
        (lambda: effective_rank([1.0], tolerance=0.0), "tolerance = 0.0"),
        (lambda: features(nn.Sequential(nn.ReLU()), []), "the data is empty"),
        (lambda: features(nn.Sequential(nn.ReLU()), [], ["conv"]), "'conv' matches no module"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
