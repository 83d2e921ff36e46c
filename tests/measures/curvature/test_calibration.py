"""Calibration of error bars: how often they cover the dense trace over two hundred seeds."""

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, LogisticLoss
from lnsgd.measures import hessian_trace
from lnsgd.models import MLP
from tests.measures.small_problems import generator, mlp, vectors
from tests.reference.measures import dense_traces

SEEDS = 200


def many_outputs():
    """Make a problem with more outputs than probes, so that Gauss–Newton probes are not replaced by the exact value."""
    torch.manual_seed(0)
    return MLP([4, 6, 20]).double()


def without_bias():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 24, bias=False)).double()


def many(classes=20):
    inputs, _ = vectors(40)
    return inputs, torch.randint(classes, (40,), generator=generator(7))


def three_with_all_the_curvature():
    """Make a problem in which 37 of forty examples have no gradient, like those of which a network is certain."""
    inputs, labels = many(24)
    inputs[3:] *= 1e-3
    return inputs, labels


CASES = {
    "hutchinson-relu": (mlp, vectors, CrossEntropy(), {"method": "hutchinson", "rtol": 0.2}),
    "hutchinson-tanh": (lambda: mlp("tanh"), vectors, CrossEntropy(), {"method": "hutchinson", "rtol": 0.25}),
    "hutch++": (lambda: mlp("tanh"), vectors, LogisticLoss(), {"method": "hutch++", "rtol": 0.15}),
    "ggn": (many_outputs, many, LogisticLoss(), {"method": "ggn", "rtol": 0.02}),
    "ggn-three-of-forty": (without_bias, three_with_all_the_curvature, LogisticLoss(), {"method": "ggn", "rtol": 0.1}),
}


SLOW = {"ggn", "ggn-three-of-forty", "hutchinson-tanh"}


@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def test_nine_of_ten_error_bars_cover_the_trace(case):
    make, data, loss, options = CASES[case]
    model, (inputs, labels) = make(), data()
    total, per_tensor = dense_traces(model, loss, inputs, labels)
    truths = torch.tensor([total, *per_tensor.values()], dtype=torch.float64)
    found = [hessian_trace(model, loss, [(inputs, labels)], generator=generator(s), **options) for s in range(SEEDS)]
    estimates = [[f.total, *f.per_tensor.values()] for f in found]
    values = torch.tensor([[e.value for e in row] for row in estimates], dtype=torch.float64)
    errors = torch.tensor([[e.standard_error for e in row] for row in estimates], dtype=torch.float64)
    covered = ((values - truths).abs() <= 1.96 * errors + 1e-12 * truths).double().mean(0)
    # A tensor whose value does not depend on signs has no error bar.
    chance = errors.amax(0) > 1e-9 * truths
    torch.testing.assert_close(values[:, ~chance], truths[~chance].expand(SEEDS, -1))
    assert chance[0]
    # The tolerance is reached, mostly with other numbers of probes.
    assert all(f.total.standard_error <= options["rtol"] * f.total.value for f in found)
    assert len({f.total.probes for f in found}) > 1
    assert (covered[chance] >= 0.90).all() and (covered[chance] <= 0.99).all(), covered
