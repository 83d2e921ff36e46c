"""Hutchinson's estimate against dense Hessians, its error bar, and what it must leave untouched."""

import math
import random
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.measures import hessian_trace
from lnsgd.models import MLP
from tests.reference.measures import dense_hessian, dense_traces, relu_net_logistic_trace
from tests.tolerances import EXACT, STANDARD_ERRORS

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}
CLASSES = 3


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on tensors this small wait for each other, on a busy machine for milliseconds a call."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mlp(activation="relu", **options):
    torch.manual_seed(0)
    return MLP([4, 5, CLASSES], activation=activation, **options).double()


def vectors(n=12):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (n,), generator=generator)


def conv_net():
    """Convolution, BatchNorm with running statistics that are not the default ones, ReLU, linear head."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES)).double()
    with torch.no_grad():
        net(3 + 2 * torch.randn(20, 1, 4, 4, dtype=torch.float64))
    return net


def images(n=10):
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(n, 1, 4, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (n,), generator=generator)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


CASES = [
    pytest.param(lambda: mlp("relu"), vectors, CrossEntropy(), id="relu-cross-entropy"),
    pytest.param(lambda: mlp("relu"), vectors, LogisticLoss(), id="relu-logistic"),
    pytest.param(lambda: mlp("tanh"), vectors, SquaredLoss("sum"), id="tanh-squared"),
    pytest.param(lambda: mlp("cubic", nu=0.5), vectors, SquaredLoss(), id="cubic-squared"),
    pytest.param(lambda: mlp("tanh", train_layers=[0]), vectors, CrossEntropy(), id="tanh-frozen-head"),
    pytest.param(conv_net, images, CrossEntropy(), id="conv-batchnorm"),
]


@pytest.mark.parametrize(("make", "data", "loss"), CASES)
def test_total_and_each_tensor_within_standard_errors_of_the_dense_hessian(make, data, loss):
    model, (inputs, labels) = make(), data()
    total, per_tensor = dense_traces(model, loss, inputs, labels)
    found = hessian_trace(model, loss, [(inputs, labels)], probes=400, generator=generator())
    # An error bar of a fifth of the trace or less, or the comparison would mean nothing.
    assert 0 < found.total.standard_error < 0.2 * abs(total)
    assert found.per_tensor.keys() == per_tensor.keys()
    assert_close(found.total, total)
    for name, estimate in found.per_tensor.items():
        assert_close(estimate, per_tensor[name])


def assert_close(estimate, expected):
    # Where the curvature is exactly diagonal the standard error is 0, up to rounding.
    assert abs(estimate.value - expected) <= STANDARD_ERRORS * estimate.standard_error + 1e-10


def test_standard_error_is_that_of_theory():
    # Rademacher probes: Var vᵀHv = 2 Σ_{i≠j} H_ij². The standard deviation of 800 probes is within 20 %
    # of it: that is four of its own standard errors for a kurtosis of 9, and more for a smaller one.
    model, (inputs, labels) = mlp("tanh"), vectors()
    hessian, _ = dense_hessian(model, CrossEntropy(), inputs, labels)
    off_diagonal = hessian - hessian.diagonal().diag()
    expected = math.sqrt(2 * off_diagonal.square().sum().item() / 800)
    found = hessian_trace(model, CrossEntropy(), [(inputs, labels)], probes=800, generator=generator())
    assert found.total.standard_error == pytest.approx(expected, rel=0.2)


class TwoWeights(nn.Module):
    """h(x) = a·b·x: the smallest model with curvature off the diagonal."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(-1.3, dtype=torch.float64))

    def forward(self, x):
        return (self.a * self.b * x).unsqueeze(1)


def half_squared(outputs, labels):
    return (outputs[:, 0] - labels).square() / 2


@pytest.mark.parametrize("seed", range(5))
def test_two_weights_give_the_trace_and_the_error_of_their_sign_vectors(seed):
    # Four sign vectors, two values: vᵀHv = Tr H ± 2H_ab. With the mean m of the P signs the estimate is
    # Tr H + 2H_ab·m and its standard error 2|H_ab|·√((1−m²)/(P−1)); m drops out of the sum below.
    model, probes = TwoWeights(), 9
    x, y = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([1, 0, 2])
    a, b, mean_xx, mean_xy = model.a.item(), model.b.item(), x.square().mean().item(), (x * y).mean().item()
    trace, cross = (a * a + b * b) * mean_xx, 2 * a * b * mean_xx - mean_xy
    found = hessian_trace(model, half_squared, [(x, y)], probes=probes, generator=generator(seed)).total
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
    found = hessian_trace(model, loss, [(inputs, labels)], probes=2).total
    assert found.value == pytest.approx(total, **APPROX)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_closed_form_of_relu_nets_agrees_with_the_dense_hessian():
    model, (inputs, labels) = mlp("relu"), vectors()
    total, _ = dense_traces(model, LogisticLoss(), inputs, labels)
    assert relu_net_logistic_trace(*model.layers, inputs) == pytest.approx(total, **APPROX)


@pytest.mark.parametrize("sizes", [[6, 6], [1, 8, 3], [1] * 12], ids=["equal", "unequal", "single-examples"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_batches_of_any_size_give_the_estimate_of_one_batch(activation, sizes):
    model, (inputs, labels) = mlp(activation), vectors()
    whole = hessian_trace(model, CrossEntropy(), [(inputs, labels)], generator=generator())
    batches = zip(inputs.split(sizes), labels.split(sizes))
    split = hessian_trace(model, CrossEntropy(), batches, generator=generator())
    assert (split.total.samples, whole.total.samples) == (12, 12)
    pairs = [(split.total, whole.total), *zip(split.per_tensor.values(), whole.per_tensor.values())]
    for found, expected in pairs:
        assert found.value == pytest.approx(expected.value, **APPROX)
        assert found.standard_error == pytest.approx(expected.standard_error, **APPROX)


def test_loss_is_the_mean_so_repeating_the_data_changes_nothing():
    model, data = mlp(), vectors()
    once = hessian_trace(model, CrossEntropy(), [data], generator=generator())
    thrice = hessian_trace(model, CrossEntropy(), [data] * 3, generator=generator())
    assert thrice.total.value == pytest.approx(once.total.value, **APPROX)
    assert (once.total.samples, thrice.total.samples) == (12, 36)


@pytest.mark.parametrize(
    "loss",
    [pytest.param(lambda outputs, labels: outputs.sum(1), id="sum"), pytest.param(HingeLoss(), id="hinge")],
)
def test_linear_model_with_linear_loss_has_no_curvature(loss):
    torch.manual_seed(0)
    found = hessian_trace(MLP([4, CLASSES]).double(), loss, [vectors()])
    assert (found.total.value, found.total.standard_error) == (0.0, 0.0)
    assert [estimate.value for estimate in found.per_tensor.values()] == [0.0, 0.0]


def test_a_parameter_that_the_output_does_not_use_has_no_curvature():
    model = mlp()
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    found = hessian_trace(model, CrossEntropy(), [vectors()], generator=generator())
    assert found.per_tensor["unused"].value == 0.0
    assert found.total.value != 0.0


@pytest.mark.parametrize(("make", "data", "loss"), CASES)
def test_tensors_sum_to_the_total(make, data, loss):
    found = hessian_trace(make(), loss, [data()], generator=generator())
    assert sum(e.value for e in found.per_tensor.values()) == pytest.approx(found.total.value, **APPROX)


def test_estimate_says_how_it_was_made():
    found = hessian_trace(mlp(), CrossEntropy(), [vectors(7)], probes=5)
    for estimate in (found.total, *found.per_tensor.values()):
        assert (estimate.probes, estimate.samples) == (5, 7)


def test_probes_come_from_the_generator():
    def value(source):
        return hessian_trace(mlp("tanh"), CrossEntropy(), [vectors()], generator=source).total.value

    assert value(generator(0)) == value(generator(0)) == value(None)
    assert value(generator(1)) != value(generator(0))


def test_processes_with_parts_of_the_data_give_the_estimate_of_all():
    model, (inputs, labels) = mlp(), vectors()
    whole = hessian_trace(model, CrossEntropy(), [(inputs, labels)], generator=generator())
    sent = []
    hessian_trace(model, CrossEntropy(), [(inputs[5:], labels[5:])], generator=generator(), reduce=keep(sent))
    found = hessian_trace(
        model, CrossEntropy(), [(inputs[:5], labels[:5])], generator=generator(), reduce=lambda t: t + sent.pop(0)
    )
    assert found.total.value == pytest.approx(whole.total.value, **APPROX)
    assert found.total.samples == 12


def keep(sent):
    """A reduction that stores what a process would send."""
    return lambda tensor: sent.append(tensor.clone()) or tensor


def test_calibration_of_the_error_bar():
    # Value ± 1.96 standard errors of 16 probes covers the dense trace for 88 to 99 % of 200 seeds: 93 %
    # expected (Student's t, 15 degrees of freedom) with a standard error of 1.8 % in the coverage.
    torch.manual_seed(0)
    model, (inputs, labels) = MLP([4, CLASSES]).double(), vectors(6)
    total, _ = dense_traces(model, CrossEntropy(), inputs, labels)
    covered = 0
    for seed in range(200):
        found = hessian_trace(model, CrossEntropy(), [(inputs, labels)], generator=generator(seed)).total
        covered += abs(found.value - total) <= 1.96 * found.standard_error
    assert 0.88 * 200 <= covered <= 0.99 * 200


class Noisy(nn.Module):
    """BatchNorm, Dropout and mixed modes: everything that a measurement could disturb."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(6, CLASSES)
        self.body[1].eval()  # a frozen BatchNorm in a model that trains
        self.body[0].weight.grad = torch.full_like(self.body[0].weight, 3.0)

    def forward(self, x):
        return self.head(self.body(x))


def snapshot(model):
    """All that must stay as it is: weights, buffers, gradients, modes and random states."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "trainable": {name: p.requires_grad for name, p in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


def assert_same(before, after):
    for kind in ("state", "grads"):
        assert before[kind].keys() == after[kind].keys()
        for name, value in before[kind].items():
            other = after[kind][name]
            assert other is None if value is None else torch.equal(value, other), (kind, name)
    assert torch.equal(before["torch"], after["torch"])
    for kind in ("trainable", "modes", "numpy", "python"):
        assert before[kind] == after[kind], kind


def drawing_batches():
    """Batches from a loader that draws from every global generator."""
    for _ in range(2):
        np.random.rand()
        random.random()
        yield torch.randn(5, 4), torch.randint(CLASSES, (5,))


@pytest.mark.parametrize("training", [True, False], ids=["train-mode", "eval-mode"])
def test_everything_is_left_as_it_was(training):
    torch.manual_seed(0)
    model = Noisy()
    if not training:
        model.eval()
    before = snapshot(model)
    hessian_trace(model, CrossEntropy(), drawing_batches(), probes=2)
    assert_same(before, snapshot(model))


def test_everything_is_left_as_it_was_after_an_error():
    torch.manual_seed(0)
    model = Noisy()
    before = snapshot(model)

    def failing(outputs, labels):
        raise KeyError("loss")

    with pytest.raises(KeyError):
        hessian_trace(model, failing, drawing_batches())
    assert_same(before, snapshot(model))


def test_curvature_is_that_of_eval_mode_whatever_the_mode():
    torch.manual_seed(0)
    model, (inputs, labels) = Noisy().double(), vectors()
    training = hessian_trace(model.train(), CrossEntropy(), [(inputs, labels)], generator=generator())
    evaluating = hessian_trace(model.eval(), CrossEntropy(), [(inputs, labels)], generator=generator())
    assert training == evaluating


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_works_where_gradients_are_off(context):
    model, data = conv_net(), images()
    expected = hessian_trace(model, CrossEntropy(), [data], generator=generator())
    with context():
        found = hessian_trace(model, CrossEntropy(), [data], generator=generator())
        assert not torch.is_grad_enabled()
    assert found == expected
    assert found.total.value != 0.0


@pytest.mark.parametrize("probes", [1, 0, -3])
def test_fewer_than_two_probes_raise(probes):
    with pytest.raises(ValueError, match=f"probes = {probes}"):
        hessian_trace(mlp(), CrossEntropy(), [vectors()], probes=probes)


@pytest.mark.parametrize("batches", [[], [vectors(0)]], ids=["no-batches", "empty-batch"])
def test_empty_data_raises(batches):
    with pytest.raises(ValueError, match="no examples"):
        hessian_trace(mlp(), CrossEntropy(), islice(batches, None))


def test_no_trainable_parameter_raises():
    with pytest.raises(ValueError, match="no trainable parameter"):
        hessian_trace(mlp().requires_grad_(False), CrossEntropy(), [vectors()])


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(nn.CrossEntropyLoss(), id="mean"),
        pytest.param(nn.MultiMarginLoss(reduction="sum"), id="sum"),
        pytest.param(lambda outputs, labels: outputs.square(), id="per-output"),
        pytest.param(lambda outputs, labels: outputs[:, :1].square(), id="column"),
    ],
)
def test_a_loss_that_is_not_per_example_raises(loss):
    with pytest.raises(ValueError, match="must be per example"):
        hessian_trace(mlp(), loss, [vectors()])
