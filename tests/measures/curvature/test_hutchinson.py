"""Hutchinson's estimator and its standard error against theory."""

import math

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy
from lnsgd.measures import hessian_trace
from tests.measures.small_problems import generator, mlp, vectors
from tests.reference.measures import dense_hessian, dense_traces
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}


def hutchinson(model, loss, batch, probes, seed=0):
    """Take the trace with a fixed number of probes, whatever their spread."""
    options = {"rtol": 1e-15, "min_probes": probes, "max_probes": probes, "generator": generator(seed)}
    return hessian_trace(model, loss, [batch], method="hutchinson", **options)


def test_standard_error_is_that_of_theory():
    # Rademacher probes: Var vᵀHv = 2 Σ_{i≠j} H_ij². The standard deviation of 800 probes is within 20 %
    # of it: that is four of its own standard errors for a kurtosis of 9, and more for a smaller one.
    model, (inputs, labels) = mlp("tanh"), vectors()
    hessian, slices = dense_hessian(model, CrossEntropy(), inputs, labels)
    found = hutchinson(model, CrossEntropy(), (inputs, labels), probes=800)

    def theory(block):
        off_diagonal = block - block.diagonal().diag()
        return math.sqrt(2 * off_diagonal.square().sum().item() / 800)

    assert found.total.standard_error == pytest.approx(theory(hessian), rel=0.2)
    for name, place in slices.items():
        # vᵀHv of one tensor takes the rows of its own, but all columns.
        rows = hessian[place]
        symmetric = torch.zeros_like(hessian)
        symmetric[place] += rows / 2
        symmetric[:, place] += rows.T / 2
        assert found.per_tensor[name].standard_error == pytest.approx(theory(symmetric), rel=0.2)


class TwoWeights(nn.Module):
    """The model h(x) = a·b·x, the smallest one with curvature off the diagonal."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(-1.3, dtype=torch.float64))

    def forward(self, x):
        return (self.a * self.b * x).unsqueeze(1)


def half_squared(outputs, labels):
    return (outputs[:, 0] - labels).square() / 2


@pytest.mark.parametrize("seed", range(5))
def test_trace_and_error_of_two_weights_in_closed_form(seed):
    # Four sign vectors, two values: vᵀHv = Tr H ± 2H_ab. With the mean m of the P signs the estimate is
    # Tr H + 2H_ab·m and its standard error 2|H_ab|·√((1−m²)/(P−1)); m drops out of the sum below.
    model, probes = TwoWeights(), 9
    x, y = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([1, 0, 2])
    a, b, mean_xx, mean_xy = model.a.item(), model.b.item(), x.square().mean().item(), (x * y).mean().item()
    trace, cross = (a * a + b * b) * mean_xx, 2 * a * b * mean_xx - mean_xy
    found = hutchinson(model, half_squared, (x, y), probes, seed).total
    m = (found.value - trace) / (2 * cross)
    assert m * probes == pytest.approx(round(m * probes), abs=1e-9)
    assert m**2 + (probes - 1) * (found.standard_error / (2 * cross)) ** 2 == pytest.approx(1, **APPROX)


class OwnWeights(nn.Module):
    """One weight per input and output: its Hessian under a squared loss is diagonal."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))

    def forward(self, x):
        return self.weights**3 * x


def test_a_diagonal_hessian_is_found_exactly_with_two_probes():
    model, (inputs, labels) = OwnWeights(), vectors()

    def loss(outputs, labels):
        return (outputs - 1).square().sum(1)

    total, _ = dense_traces(model, loss, inputs, labels)
    found = hutchinson(model, loss, (inputs, labels), probes=2).total
    assert found.value == pytest.approx(total, **APPROX)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_probes_are_added_up_to_tolerance_or_maximum():
    def taken(**options):
        found = hessian_trace(mlp(), CrossEntropy(), [vectors()], method="hutchinson", **options).total
        return found.probes, found.standard_error / found.value

    assert taken(rtol=10) == taken(rtol=10, max_probes=16)
    assert taken(rtol=10)[0] == 16
    assert taken(rtol=1e-6, max_probes=50)[0] == 50
    probes, error = taken(rtol=0.1)
    assert 16 < probes < 1000
    assert error <= 0.1
