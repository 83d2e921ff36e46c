"""No measure is finite if one number in a weight, an input or a label is NaN or infinite."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lnsgd import measures
from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.measures import NonFiniteError, closed_forms, geometry
from lnsgd.measures.pairs.cka import linear_cka
from lnsgd.measures.pairs.interpolation import barrier
from lnsgd.models import MLP
from lnsgd.modules.totals import ClassificationTotals

BAD = [math.nan, math.inf, -math.inf]
EXAMPLES, FEATURES, HIDDEN, CLASSES = 6, 4, 5, 3

Network = tuple[nn.Module, Tensor, Tensor]


def network() -> Network:
    torch.manual_seed(0)
    net = MLP([FEATURES, HIDDEN, CLASSES])
    return net, torch.randn(EXAMPLES, FEATURES), torch.randint(CLASSES, (EXAMPLES,))


def numbers(found: Any) -> Iterator[float]:
    """Yield all floating-point numbers in a result."""
    if isinstance(found, Tensor):
        yield from found.double().flatten().tolist()
    elif isinstance(found, np.ndarray):
        yield from found.ravel().tolist()
    elif is_dataclass(found) and not isinstance(found, type):
        sizes = ("samples", "probes", "method", "units")
        yield from numbers({k: v for k, v in asdict(found).items() if k not in sizes})
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from numbers(value)
    elif isinstance(found, (tuple, list)):
        for value in found:
            yield from numbers(value)
    elif isinstance(found, (int, float)):
        yield float(found)


def assert_no_number(measure: Callable[[], Any], every: bool = True) -> None:
    """Check that a measure raises an error or returns no finite number."""
    try:
        found = list(numbers(measure()))
    except NonFiniteError:
        return
    assert found
    finite = [value for value in found if math.isfinite(value)]
    assert not finite if every else len(finite) < len(found)


def batches(inputs: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(inputs[:4], labels[:4]), (inputs[4:], labels[4:])]


def fired(net: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> measures.Firings:
    """Count the firings of the hidden layer, by class if labels are given."""
    firings = measures.Firings(1 if labels is None else CLASSES, HIDDEN)
    with torch.no_grad(), measures.observe(measures.activation_sites(net), lambda _, p: firings.update(p, labels)):
        net(inputs)
    return firings


def ten_products(net: nn.Module, inputs: Tensor, labels: Tensor) -> Any:
    return measures.top_eigenvalues(net, CrossEntropy(), batches(inputs, labels), count=1, max_products=10).values


# Measures of a network and data. Hinge and ReLU turn some infinities into zero.
OF_DATA: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "performance": lambda n, x, y: measures.performance(n, CrossEntropy(), batches(x, y)),
    "performance-hinge": lambda n, x, y: measures.performance(n, HingeLoss(), batches(x, y)),
    "margins": lambda n, x, y: (measures.margins(n, batches(x, y)).fraction(0.0),),
    "margin-quantile": lambda n, x, y: (measures.margins(n, batches(x, y)).quantile(0.5),),
    "largest-output": lambda n, x, y: measures.largest_output(n, batches(x, y)),
    "active-neurons": lambda n, x, y: measures.active_count(fired(n, x)),
    "dead-neurons": lambda n, x, y: measures.dead_count(fired(n, x)),
    "class-association": lambda n, x, y: measures.associated_count(fired(n, x, y)),
    "gradient-norm": lambda n, x, y: measures.gradient_norm(n, CrossEntropy(), batches(x, y)),
    "example-gradients": lambda n, x, y: measures.example_gradient_norms(n, CrossEntropy(), batches(x, y)),
    "hessian-trace": lambda n, x, y: measures.hessian_trace(n, CrossEntropy(), batches(x, y)),
    "hutchinson": lambda n, x, y: measures.hessian_trace(
        n, CrossEntropy(), batches(x, y), method="hutchinson", rtol=0.5
    ),
    "top-eigenvalues": ten_products,
    "spectral-density": lambda n, x, y: measures.spectral_density(n, CrossEntropy(), batches(x, y), steps=3).nodes,
    "implicit-regularizer": lambda n, x, y: measures.implicit_regularizer(n, batches(x, y)),
    "norm-step": lambda n, x, y: closed_forms.norm_step(n, LogisticLoss(), x, y),
}


def spoil(values: Tensor, place: int, bad: float) -> None:
    with torch.no_grad():
        values.view(-1)[place % values.numel()] = bad


@pytest.mark.parametrize("name", OF_DATA)
def test_measures_of_a_finite_network_are_finite(name):
    assert all(map(math.isfinite, numbers(OF_DATA[name](*network()))))


# The weights of the last layer do not affect whether a hidden unit fires.
HIDDEN_ONLY = ("active-neurons", "dead-neurons", "class-association")


@pytest.mark.parametrize("name", OF_DATA)
@given(bad=st.sampled_from(BAD), which=st.integers(0, 3), place=st.integers(0, 99))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_nonfinite_weight_is_not_hidden(name, bad, which, place):
    net, inputs, labels = network()
    spoil(list(net.parameters())[which % 2 if name in HIDDEN_ONLY else which], place, bad)
    assert_no_number(lambda: OF_DATA[name](net, inputs, labels))


@pytest.mark.parametrize("name", OF_DATA)
@given(bad=st.sampled_from(BAD), place=st.integers(0, EXAMPLES * FEATURES - 1))
@settings(max_examples=5, deadline=None, derandomize=True)
def test_nonfinite_input_is_not_hidden(name, bad, place):
    net, inputs, labels = network()
    spoil(inputs, place, bad)
    assert_no_number(lambda: OF_DATA[name](net, inputs, labels))


@pytest.mark.parametrize("name", ["performance", "gradient-norm", "hessian-trace", "norm-step"])
@pytest.mark.parametrize("bad", BAD)
def test_nonfinite_label_is_not_hidden(name, bad):
    net, inputs, _ = network()
    targets = torch.randn(EXAMPLES, CLASSES)
    spoil(targets, 3, bad)
    data, loss = batches(inputs, targets), SquaredLoss()
    if name == "norm-step":
        assert_no_number(lambda: closed_forms.norm_step(net, loss, inputs, targets))
    else:
        measure = {
            "performance": measures.performance,
            "gradient-norm": measures.gradient_norm,
            "hessian-trace": measures.hessian_trace,
        }[name]
        assert_no_number(lambda: measure(net, loss, data))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", range(HIDDEN))
def test_nonfinite_activation_is_not_hidden(bad, place):
    """A number overflows within the network, whose weights and inputs are finite."""

    class Overflowing(MLP):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.layers[0](x)
            hidden = hidden.index_fill(1, torch.tensor([place]), bad)
            return self.layers[1](self.activations[0](hidden))

    _, inputs, labels = network()
    net = Overflowing([FEATURES, HIDDEN, CLASSES])
    for name in HIDDEN_ONLY:
        assert_no_number(lambda name=name: OF_DATA[name](net, inputs, labels))
    if bad != -math.inf:  # ReLU makes it zero, and the outputs are finite
        for name in ("performance", "performance-hinge", "margins", "largest-output", "gradient-norm"):
            assert_no_number(lambda name=name: OF_DATA[name](net, inputs, labels))


# Measures of tensors alone.
MATRIX = torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.5, 0.1]])
OF_TENSOR: dict[str, Callable[[Tensor], Any]] = {
    "distance": lambda w: measures.distance_from_init({"w": w}, {"w": MATRIX}).total,
    "distance-of-init": lambda w: measures.distance_from_init({"w": MATRIX}, {"w": w}).total,
    "statistics": lambda w: measures.tensor_statistics({"w": w})["w"],
    "singular-values": measures.singular_values,
    "effective-rank": lambda w: measures.effective_rank(w.flatten()),
    "cluster-count": lambda w: measures.cluster_count(w, 0.1),
    "norm-products": lambda w: measures.norm_products({"w": w, "v": MATRIX.T}),
    "recovery-error": lambda w: closed_forms.recovery_error(w, torch.eye(3)),
    "recovery-error-target": lambda w: closed_forms.recovery_error(MATRIX, w @ w.T),
    "associated-class": lambda w: measures.associated_class(w),
    "active-neurons": lambda w: measures.mean_active(w),
    "cka": lambda w: linear_cka([(w.repeat(2, 1), torch.arange(6.0)[:, None])]),
    "barrier": lambda w: barrier([1.0, *w.flatten().tolist(), 2.0]),
}


@pytest.mark.parametrize("name", OF_TENSOR)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", range(MATRIX.numel()))
def test_nonfinite_entry_of_a_tensor_is_not_hidden(name, bad, place):
    assert all(map(math.isfinite, numbers(OF_TENSOR[name](MATRIX))))
    values = MATRIX.clone()
    spoil(values, place, bad)
    assert_no_number(lambda: OF_TENSOR[name](values), every=name != "norm-products")
    if name == "norm-products":
        assert math.isnan(measures.norm_products({"w": values, "v": MATRIX.T}).spectral)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", range(8))
def test_nonfinite_curve_parameter_is_not_hidden(bad, place):
    """Any parameter of a network 1-3-1 with a direct connection may be bad."""
    torch.manual_seed(0)
    net = MLP([1, 3, 1])
    spoil(list(net.parameters())[place % 4], place, bad)
    x, y = geometry.polyline(net)
    points = np.linspace(-1, 1, 5)
    found = [
        geometry.curve_length(x, y),
        geometry.convexity_changes(x, y),
        geometry.chord_deviation(x, y, points, points),
        measures.hidden_units(net, torch.linspace(-1, 1, 4)[:, None]).activations.mean().item(),
    ]
    assert not any(map(math.isfinite, found[:3]))
    if place % 4 < 2:  # the parameters of the units
        assert not math.isfinite(found[3])


@pytest.mark.parametrize("bad", BAD)
def test_nonfinite_curve_data_are_not_hidden(bad):
    x, y = np.array([-1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0])
    points = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    for which in range(2):
        pair = [points.copy(), points.copy()]
        pair[which][1] = bad
        assert math.isnan(geometry.chord_deviation(x, y, *pair))


@pytest.mark.parametrize("bad", BAD)
def test_closed_forms_do_not_hide_nonfinite_data(bad):
    net = MLP([2, 3, 1], activation="cubic", bias=False)
    with torch.no_grad():
        net.layers[1].weight.fill_(1.0)
    inputs, targets = torch.eye(2), torch.ones(2, 1)
    spoil(net.layers[0].weight, 1, bad)
    found = asdict(closed_forms.sharpness(net, inputs, targets))
    del found["least_trace"]  # it depends on the data only
    assert not any(map(math.isfinite, found.values()))


@pytest.mark.parametrize("bad", BAD)
def test_totals_of_an_epoch_do_not_hide_nan(bad):
    """Accuracy needs the largest output, which does not exist with NaN."""
    outputs, labels = torch.randn(5, CLASSES), torch.zeros(5, dtype=torch.int64)
    totals = ClassificationTotals()
    totals.update(HingeLoss()(outputs, labels), outputs, labels, labels)
    assert math.isfinite(totals.compute()["accuracy"])
    outputs[2, 1] = bad
    totals.update(HingeLoss()(outputs, labels), outputs, labels, labels)
    found = totals.compute()
    assert math.isnan(found["loss"]) and math.isnan(found["accuracy"])
    assert found["flip_rate"] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_of_large_numbers_do_not_overflow(dtype):
    """Large finite numbers have finite measures, even if their sum overflows in their own type."""
    large = torch.finfo(dtype).max / 4
    values = torch.full((64, 8), large, dtype=dtype)
    assert measures.tensor_statistics({"w": values})["w"].norm == pytest.approx(large * 512**0.5, rel=1e-2)
    assert math.isfinite(measures.distance_from_init({"w": values}, {"w": -values}).total)
    assert measures.largest_output(nn.Identity(), [(values, torch.zeros(64))]) == pytest.approx(large, rel=1e-2)
    if dtype is torch.float16:
        assert measures.mean_active(values) == 8


def test_alignment_of_large_features_is_one():
    x = torch.arange(6.0, dtype=torch.float64)[:, None] * 1e60
    assert linear_cka([(x, x)]).biased == pytest.approx(1.0)
