"""Arguments, models and data that the Hessian trace refuses, each with one clear error."""

import math

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, SquaredLoss
from lnsgd.measures import NonFiniteError, hessian_trace
from lnsgd.models import MLP
from tests.measures.small_problems import CLASSES, Net, mlp, vectors

METHODS = ("ggn", "hutchinson", "hutch++", "exact")


def refused(message, model=None, loss=None, data=None, **options):
    batches = [vectors()] if data is None else data
    with pytest.raises(ValueError, match=message) as refusal:
        hessian_trace(model or mlp(), loss or CrossEntropy(), batches, **options)
    assert "\n" not in str(refusal.value)
    return refusal.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "lanczos"},
            r"method = 'lanczos' is unknown; choose one of auto, ggn, hutchinson, hutch\+\+, exact",
        ),
        ({"rtol": 0.0}, "rtol = 0.0"),
        ({"rtol": -1}, "rtol = -1"),
        ({"rtol": math.nan}, "rtol = nan"),
        ({"min_probes": 1}, "min_probes = 1"),
        ({"max_probes": 15}, "max_probes = 15 is below min_probes = 16"),
    ],
)
def test_options_that_make_no_sense_raise(options, message):
    refused(message, **options)


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("batches", [[], [vectors(0)], [vectors(0), vectors(0)]], ids=["none", "empty", "two-empty"])
def test_empty_data_raises(batches, method):
    refused("no examples", data=batches, method=method)


def test_data_that_can_be_read_only_once_raises():
    refused("list_iterator, which can be read only once", data=iter([vectors()]))
    refused("generator, which can be read only once", data=(batch for batch in [vectors()]))


def test_no_trainable_parameter_raises():
    refused("MLP has no trainable parameter", mlp().requires_grad_(False))


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize(
    ("forward", "kind"),
    [
        pytest.param(lambda net, x: net.fc(x).argmax(1), "torch.int64", id="classes"),
        pytest.param(lambda net, x: (net.fc(x).argmax(1), None), "tuple", id="tuple"),
        pytest.param(lambda net, x: {"loss": net.fc(x).mean()}, "dict", id="dict"),
    ],
)
def test_outputs_that_are_not_one_tensor_of_numbers_raise(forward, kind, method):
    refused(f"Net gives {kind}", Net(forward, fc=nn.Linear(4, 3)).double(), method=method)


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(nn.CrossEntropyLoss(), id="mean"),
        pytest.param(nn.MultiMarginLoss(reduction="sum"), id="sum"),
        pytest.param(lambda outputs, labels: outputs.square(), id="per-output"),
        pytest.param(lambda outputs, labels: outputs[:, :1].square(), id="column"),
    ],
)
def test_a_loss_that_is_not_per_example_raises(loss, method):
    refused("must be per example", loss=loss, method=method)


def of_nan():
    model = mlp()
    with torch.no_grad():
        model.layers[0].weight[0, 0] = math.nan
    return model


def infinite_input():
    inputs, labels = vectors()
    inputs[3, 1] = math.inf
    return inputs, labels


def nan_labels():
    inputs, labels = vectors()
    targets = torch.nn.functional.one_hot(labels, CLASSES).double()
    targets[2, 1] = math.nan
    return inputs, targets


def infinite_constant(outputs, labels):
    return outputs.square().sum(1) + math.inf


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize(
    ("make", "loss", "data"),
    [
        pytest.param(of_nan, CrossEntropy(), vectors, id="nan-weight"),
        pytest.param(mlp, CrossEntropy(), infinite_input, id="infinite-input"),
        # The curvature of the squared loss does not depend on labels.
        pytest.param(mlp, SquaredLoss(), nan_labels, id="nan-label"),
        pytest.param(mlp, infinite_constant, vectors, id="infinite-constant"),
    ],
)
def test_values_that_are_not_finite_raise(make, loss, data, method):
    error = refused("not finite", make(), loss, [data()], method=method)
    assert isinstance(error, NonFiniteError)


def test_gauss_newton_names_the_operation_that_is_not_piecewise_linear():
    refused(r"activations.0 \(Tanh\) is not, by its operation Tanh: use method = 'auto'", mlp("tanh"), method="ggn")


def test_exact_for_a_large_network_raises():
    refused("there are 20401; at most 20000 are allowed", MLP([100, 200, 1]), method="exact", data=[vectors(2)])


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_batchnorm_without_running_statistics_raises(method):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).double()
    refused(r"1 \(BatchNorm1d\) has no running statistics", model, method=method)
