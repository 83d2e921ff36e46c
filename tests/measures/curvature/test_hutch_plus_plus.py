"""Hutch++ with a basis that spans the Hessian, and with a smaller one."""

import pytest
import torch

from lnsgd.losses import CrossEntropy, SquaredLoss
from lnsgd.measures import hessian_trace
from lnsgd.models import MLP
from tests.measures.small_problems import generator, mlp, vectors
from tests.reference.measures import dense_traces
from tests.tolerances import EXACT, STANDARD_ERRORS


def trace(model, loss, batch, **options):
    return hessian_trace(model, loss, [batch], method="hutch++", **{"generator": generator(), **options})


def wide():
    torch.manual_seed(0)
    return MLP([4, 30, 3], activation="tanh").double()


def test_one_round_is_exact_for_a_hessian_of_low_rank():
    # With its own outputs as labels the Hessian is a sum of 4 examples · 3 outputs outer products; 243 weights.
    model, (inputs, _) = wide(), vectors(4)
    labels = model(inputs).detach()
    total, per_tensor = dense_traces(model, SquaredLoss("sum"), inputs, labels)
    found = trace(model, SquaredLoss("sum"), (inputs, labels))
    assert found.total.probes == 3 * 16
    assert found.total.value == pytest.approx(total, rel=EXACT["rtol"])
    assert found.total.standard_error == pytest.approx(0, abs=1e-10 * total)
    assert {name: e.value for name, e in found.per_tensor.items()} == pytest.approx(per_tensor, rel=EXACT["rtol"])


@pytest.mark.parametrize(("widths", "loss"), [([4, 3], CrossEntropy()), ([4, 4, 3], SquaredLoss("sum"))])
def test_more_directions_than_weights_are_not_taken(widths, loss):
    # 15 and 35 weights; a round takes 16 directions, the next one as many again.
    torch.manual_seed(0)
    model, (inputs, labels) = MLP(widths, activation="tanh").double(), vectors(30)
    total, per_tensor = dense_traces(model, loss, inputs, labels)
    found = trace(model, loss, (inputs, labels), rtol=1e-9)
    assert found.total.value == pytest.approx(total, rel=EXACT["rtol"])
    assert found.total.standard_error <= 1e-9 * total
    assert {name: e.value for name, e in found.per_tensor.items()} == pytest.approx(per_tensor, rel=EXACT["rtol"])


def test_error_is_smaller_than_hutchinsons_at_equal_products():
    # Close to labels that it fits, 18 eigenvalues are large.
    model, (inputs, _) = wide(), vectors(6)
    labels = (model(inputs) + 0.1).detach()
    total, _ = dense_traces(model, SquaredLoss(), inputs, labels)
    options = {"rtol": 1e-9, "max_probes": 96, "generator": generator()}
    found = trace(model, SquaredLoss(), (inputs, labels), min_probes=32, **options).total
    other = hessian_trace(model, SquaredLoss(), [(inputs, labels)], method="hutchinson", min_probes=96, **options).total
    assert (found.probes, other.probes) == (96, 96)
    # Measured: an eighth.
    assert found.standard_error < other.standard_error / 4
    assert abs(found.value - total) <= STANDARD_ERRORS * found.standard_error


@pytest.mark.parametrize("max_probes", [48, 50, 100, 150])
def test_at_most_the_allowed_number_of_products(max_probes):
    found = trace(wide(), CrossEntropy(), vectors(30), rtol=1e-9, max_probes=max_probes).total
    assert max_probes - 3 < found.probes <= max_probes


def test_fewer_products_allowed_than_a_round_takes_raises():
    with pytest.raises(ValueError, match=r"max_probes = 47; .* at least 3 · min_probes = 48 products"):
        trace(mlp(), CrossEntropy(), vectors(), max_probes=47)
