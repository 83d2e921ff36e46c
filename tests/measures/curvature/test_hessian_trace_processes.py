"""The Hessian trace by several processes with parts of the data is that by one process."""

import copy
import math

import pytest
import torch

from lnsgd.losses import CrossEntropy
from lnsgd.measures import NonFiniteError, hessian_trace
from lnsgd.models import MLP
from tests.measures.small_problems import (
    assert_equal_traces,
    conv_net,
    generator,
    images,
    in_processes,
    mlp,
    part,
    vectors,
)


def many_outputs():
    """A network with so many outputs that ggn draws signs instead of a pass for each output."""
    torch.manual_seed(1)  # of which a single example reaches two hidden units: one alone has no spread
    return MLP([4, 5, 30]).double()


def fourth_powers(outputs, labels):
    return (outputs**4).sum(1)


METHODS = {
    "ggn-exact": (mlp, CrossEntropy(), {"method": "ggn", "rtol": 1e-9}),
    "ggn-probes": (many_outputs, fourth_powers, {"method": "ggn", "rtol": 0.5, "min_probes": 2}),
    "hutchinson": (mlp, CrossEntropy(), {"method": "hutchinson", "rtol": 0.2}),
    "hutch++": (mlp, CrossEntropy(), {"method": "hutch++", "rtol": 0.1}),
    "exact": (mlp, CrossEntropy(), {"method": "exact"}),
    "auto": (mlp, CrossEntropy(), {"rtol": 1e-9}),
    "auto-tanh": (lambda: mlp("tanh"), CrossEntropy(), {}),
    "auto-tanh-hutchinson": (lambda: mlp("tanh"), CrossEntropy(), {"rtol": 0.2, "max_probes": 40}),
}

# Sizes of batches. Of a batch with one example the second process gets nothing.
LAYOUTS = {"even": [6, 6], "uneven": [7, 4, 1], "all-to-one": [1, 1, 1], "one-example": [1], "empty-first": [1, 7, 4]}


def batches_of(sizes, data=vectors):
    inputs, labels = data(sum(sizes))
    return list(zip(inputs.split(sizes), labels.split(sizes)))


def measured(model, loss, batches, options, given=part):
    """Return the traces by one process with all batches, and by each of two with a part of them."""
    one = hessian_trace(model, loss, batches, generator=generator(), **options)

    def measure(share):
        mine = given(batches, share)
        return hessian_trace(copy.deepcopy(model), loss, mine, generator=generator(), share=share, **options)

    return one, in_processes(measure)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_give_the_estimate_of_one(layout, method):
    make, loss, options = METHODS[method]
    one, found = measured(make(), loss, batches_of(LAYOUTS[layout]), options)
    assert (one.total.probes > 0) == (method in ("ggn-probes", "hutchinson", "hutch++", "auto-tanh-hutchinson"))
    for ours in found:
        assert_equal_traces(ours, one)


def without_empty(batches, share):
    return [batch for batch in part(batches, share) if len(batch[0])]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", [[1], [6, 1]], ids=["none", "one-batch-less"])
def test_a_process_may_have_fewer_batches(sizes, method):
    make, loss, options = METHODS[method]
    one, found = measured(make(), loss, batches_of(sizes), options, given=without_empty)
    for ours in found:
        assert_equal_traces(ours, one)


@pytest.mark.parametrize("method", ["ggn", "hutchinson"])
def test_convolutions_and_batchnorm(method):
    one, found = measured(conv_net(), CrossEntropy(), batches_of([5, 1], images), {"method": method, "rtol": 0.3})
    for ours in found:
        assert_equal_traces(ours, one)


def test_a_network_is_refused_by_all_processes():
    def measure(share):
        with pytest.raises(ValueError, match="piecewise linear") as refusal:
            hessian_trace(mlp("tanh"), CrossEntropy(), part(batches_of([1]), share), method="ggn", share=share)
        return str(refusal.value)

    first, second = in_processes(measure)
    assert "activations.0 (Tanh) is not" in first
    assert "another process" in second


@pytest.mark.parametrize("method", METHODS)
def test_a_value_that_is_not_finite_raises_on_all_processes(method):
    make, loss, options = METHODS[method]
    batches = batches_of([6])
    batches[0][0][3] = math.nan

    def measure(share):
        with pytest.raises(NonFiniteError):
            hessian_trace(make(), loss, part(batches, share), generator=generator(), share=share, **options)
        return True

    assert in_processes(measure) == [True, True]


@pytest.mark.parametrize("method", METHODS)
def test_empty_data_raises_on_all_processes(method):
    make, loss, options = METHODS[method]

    def measure(share):
        with pytest.raises(ValueError, match="no examples"):
            hessian_trace(make(), loss, [], share=share, **options)
        return True

    assert in_processes(measure) == [True, True]
