"""Second derivatives of losses by the outputs, in factors."""

import math

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.measures.curvature.output_curvature import output_factors
from lnsgd.measures.curvature.problem import Problem
from tests.measures.small_problems import generator
from tests.tolerances import EXACT


def problem(loss):
    return Problem(nn.Linear(1, 1), loss, [])


def saddle(outputs, labels):
    return (outputs[:, 0] * outputs[:, 1]).sin() + outputs.square().sum(1) * labels


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(CrossEntropy(), id="cross-entropy"),
        pytest.param(LogisticLoss(), id="logistic"),
        pytest.param(SquaredLoss(), id="squared"),
        pytest.param(HingeLoss(), id="hinge"),
        pytest.param(saddle, id="saddle"),
        pytest.param(lambda outputs, labels: outputs.sum(1), id="linear"),
        pytest.param(lambda outputs, labels: torch.zeros(len(outputs)), id="constant"),
    ],
)
def test_factors_give_the_hessian_of_each_example(loss):
    outputs = torch.randn(5, 4, generator=generator(), dtype=torch.float64)
    labels = torch.arange(5) % 3
    factors, signs = output_factors(problem(loss), outputs, labels)
    assert set(signs.unique().tolist()) <= {-1, 0, 1}
    for i in range(5):
        expected = torch.autograd.functional.hessian(lambda o, i=i: loss(o[None], labels[i : i + 1]).sum(), outputs[i])
        torch.testing.assert_close(factors[i] * signs[i] @ factors[i].T, expected, **EXACT)


@pytest.mark.parametrize("scale", [0.1, 1, 5, 20])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_rounding_gives_cross_entropy_no_negative_curvature(classes, scale):
    # In float32, and also where a sure network leaves hardly any curvature.
    outputs = torch.randn(64, classes, generator=generator()) * scale
    factors, signs = output_factors(problem(CrossEntropy()), outputs, torch.arange(64) % classes)
    assert (signs >= 0).all()
    p = outputs.double().softmax(1)
    expected = (p - p.square()).sum()
    torch.testing.assert_close(factors.double().square().sum(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_gives_nan(bad):
    outputs = torch.ones(2, 3)
    outputs[0, 0] = bad
    factors, _ = output_factors(problem(SquaredLoss()), outputs, torch.zeros(2, dtype=torch.long))
    assert factors.isnan().any()
    constant = output_factors(problem(lambda o, labels: o.sum(1) + bad), torch.ones(2, 3), torch.zeros(2))
    assert constant[0].isnan().any()
