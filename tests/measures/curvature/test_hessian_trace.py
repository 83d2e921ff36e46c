"""Every method against dense Hessians and closed forms, and that nothing else changes."""

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.measures import hessian_trace, implicit_regularizer
from lnsgd.models import MLP
from tests.measures.small_problems import (
    CLASSES,
    DrawingBatches,
    Net,
    Noisy,
    assert_equal_traces,
    assert_same,
    conv_net,
    generator,
    images,
    mlp,
    narrow_resnet,
    snapshot,
    vectors,
)
from tests.reference.curvature import dense_diagonals, example_norms_loop
from tests.reference.measures import dense_traces, relu_net_logistic_trace
from tests.tolerances import EXACT, STANDARD_ERRORS

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}
METHODS = ("ggn", "hutchinson", "hutch++", "exact")
# ggn in its C backward passes.
TIGHT = 1e-9


def convolution_with_a_shortcut():
    """Convolutions around a residual block, pooling, and a mean over positions."""
    torch.manual_seed(3)
    inner = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.ReLU())
    first, last = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU()), nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, CLASSES, 1))
    net = Net(lambda net, x: last_mean(net, net.first(x)), first=first, inner=inner, last=last)
    return net.double()


def last_mean(net, h):
    return net.last(h + net.inner(h)).mean((2, 3))


def with_layernorm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, CLASSES)).double()


RELU = {
    "mlp-cross-entropy": (mlp, vectors, CrossEntropy()),
    "mlp-logistic": (mlp, vectors, LogisticLoss()),
    "mlp-squared": (mlp, vectors, SquaredLoss()),
    "mlp-frozen-head": (lambda: mlp(train_layers=[0]), vectors, CrossEntropy()),
    "conv-batchnorm": (conv_net, images, CrossEntropy()),
    "conv-shortcut": (convolution_with_a_shortcut, images, LogisticLoss()),
}
BENT = {
    "tanh-cross-entropy": (lambda: mlp("tanh"), vectors, CrossEntropy()),
    "tanh-squared": (lambda: mlp("tanh"), vectors, SquaredLoss("sum")),
    "cubic-squared": (lambda: mlp("cubic", nu=0.5), vectors, SquaredLoss()),
    "tanh-frozen-head": (lambda: mlp("tanh", train_layers=[0]), vectors, LogisticLoss()),
    "layernorm": (with_layernorm, vectors, CrossEntropy()),
}
CASES = RELU | BENT


def expected_of(case):
    make, data, loss = CASES[case]
    model, (inputs, labels) = make(), data()
    return model, loss, (inputs, labels), dense_traces(model, loss, inputs, labels)


def assert_exact(found, total, per_tensor):
    assert found.total.value == pytest.approx(total, **APPROX)
    assert found.per_tensor.keys() == per_tensor.keys()
    for name, estimate in found.per_tensor.items():
        assert estimate.value == pytest.approx(per_tensor[name], **APPROX)
        assert (estimate.standard_error, estimate.probes) == (0, 0)
    assert (found.total.standard_error, found.total.probes) == (0, 0)


def assert_close(found, total, per_tensor):
    pairs = [(found.total, total), *((found.per_tensor[name], value) for name, value in per_tensor.items())]
    for estimate, expected in pairs:
        # Where nothing is left to chance the standard error is 0, up to rounding.
        assert abs(estimate.value - expected) <= STANDARD_ERRORS * estimate.standard_error + 1e-10
    assert found.per_tensor.keys() == per_tensor.keys()


@pytest.mark.parametrize("case", CASES)
def test_exact_is_the_trace_of_the_dense_hessian(case):
    model, loss, data, expected = expected_of(case)
    assert_exact(hessian_trace(model, loss, [data], method="exact"), *expected)


@pytest.mark.parametrize("case", RELU)
def test_exact_gauss_newton_is_the_trace_of_the_dense_hessian(case):
    model, loss, data, expected = expected_of(case)
    for method in ("ggn", "auto"):
        found = hessian_trace(model, loss, [data], method=method, rtol=TIGHT)
        assert_exact(found, *expected)
        assert found.method == "ggn"


PROBED = [
    (case, method) for case in CASES for method in ("ggn", "hutchinson", "hutch++") if method != "ggn" or case in RELU
]


@pytest.mark.parametrize(("case", "method"), PROBED)
def test_probes_are_within_standard_errors_of_the_dense_hessian(case, method):
    model, loss, data, (total, per_tensor) = expected_of(case)
    found = hessian_trace(model, loss, [data], method=method, rtol=0.2, generator=generator())
    assert 0 <= found.total.standard_error <= 0.2 * abs(found.total.value)
    assert found.method == method
    assert_close(found, total, per_tensor)


@pytest.fixture(scope="module")
def resnet():
    """Return a narrow ResNet-20, data, and the diagonals of its Hessian and Gauss–Newton matrix."""
    model, (inputs, labels) = narrow_resnet().eval(), resnet_images()
    return model, (inputs, labels), dense_diagonals(model, CrossEntropy(), inputs, labels)[0]


def resnet_images():
    source = generator(5)
    return torch.randn(3, 3, 8, 8, generator=source, dtype=torch.float64), torch.arange(3)


def traces_of(diagonal, model):
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parts = diagonal.split([p.numel() for p in named.values()])
    return diagonal.sum().item(), {name: part.sum().item() for name, part in zip(named, parts)}


@pytest.mark.parametrize("method", ["ggn", "hutchinson", "hutch++"])
def test_resnet_20(method, resnet):
    model, data, diagonal = resnet
    options = {"rtol": TIGHT} if method == "ggn" else {"max_probes": 60, "generator": generator()}
    found = hessian_trace(model, CrossEntropy(), [data], method=method, **options)
    check = assert_exact if method == "ggn" else assert_close
    check(found, *traces_of(diagonal, model))


def test_resnet_20_exact_for_some_tensors():
    # One product per weight: the last block and the linear layer keep it short.
    model, (inputs, labels) = narrow_resnet().eval().requires_grad_(False), resnet_images()
    for module in (model.layer3[2].conv1, model.layer3[2].bn2, model.linear):
        module.requires_grad_(True)
    expected = traces_of(dense_diagonals(model, CrossEntropy(), inputs, labels)[0], model)
    assert_exact(hessian_trace(model, CrossEntropy(), [(inputs, labels)], method="exact"), *expected)


@pytest.mark.parametrize("make", [lambda: mlp("tanh"), lambda: mlp("cubic", nu=0.5)], ids=["tanh", "cubic"])
def test_trace_at_zero_loss_is_twice_the_implicit_regularizer(make):
    # Lemma 2 of the sharpness paper, for the sum Σ_i (f(x_i) − y_i)², which is n times our mean.
    model, (inputs, _) = make(), vectors()
    labels = model(inputs).detach()
    found = hessian_trace(model, SquaredLoss("sum"), [(inputs, labels)], method="exact")
    squares = sum(example_norms_loop(model, inputs, one.expand(12, 3)).sum().item() for one in torch.eye(3).double())
    assert 12 * found.total.value == pytest.approx(2 * squares, **APPROX)
    assert found.total.value == pytest.approx(2 * implicit_regularizer(model, [(inputs, labels)]), **APPROX)


def test_closed_form_of_relu_nets():
    model, (inputs, labels) = mlp(), vectors()
    expected = relu_net_logistic_trace(*model.layers, inputs)
    for method in ("ggn", "exact"):
        found = hessian_trace(model, LogisticLoss(), [(inputs, labels)], method=method, rtol=TIGHT)
        assert found.total.value == pytest.approx(expected, **APPROX)


def test_auto_chooses_by_network_and_size():
    def chosen(model, **options):
        return hessian_trace(model, CrossEntropy(), [vectors()], rtol=0.5, **options).method

    assert chosen(mlp()) == "ggn"
    assert chosen(mlp("tanh")) == "exact"  # 43 weights
    assert chosen(mlp("tanh"), max_probes=43) == "exact"
    assert chosen(mlp("tanh"), max_probes=42) == "hutchinson"


def test_float32_gives_the_trace_of_float64():
    model, (inputs, labels) = mlp(), vectors()
    expected = hessian_trace(model, CrossEntropy(), [(inputs, labels)], rtol=TIGHT).total.value
    for method in ("ggn", "exact"):
        found = hessian_trace(model.float(), CrossEntropy(), [(inputs.float(), labels)], method=method, rtol=TIGHT)
        assert found.total.value == pytest.approx(expected, rel=1e-5)


# Batches, samples and probes.


@pytest.mark.parametrize("sizes", [[70, 70], [1, 136, 3], [1] * 5 + [135]], ids=["equal", "unequal", "singles"])
@pytest.mark.parametrize("method", METHODS)
def test_batches_of_any_size_give_the_estimate_of_one_batch(method, sizes):
    # Of ggn only without probes, which it draws batch by batch.
    options = {"method": method, "rtol": TIGHT if method == "ggn" else 0.2}
    model, (inputs, labels) = mlp(), vectors(140)
    whole = hessian_trace(model, CrossEntropy(), [(inputs, labels)], generator=generator(), **options)
    batches = list(zip(inputs.split(sizes), labels.split(sizes)))
    split = hessian_trace(model, CrossEntropy(), batches, generator=generator(), **options)
    assert split.total.samples == 140
    assert_equal_traces(split, whole)


@pytest.mark.parametrize("method", METHODS)
def test_empty_batches_among_others_change_nothing(method):
    options = {"method": method, "rtol": TIGHT if method == "ggn" else 0.2}
    expected = hessian_trace(conv_net(), CrossEntropy(), [images()], generator=generator(), **options)
    batches = [images(0), images(), images(0)]
    assert_equal_traces(hessian_trace(conv_net(), CrossEntropy(), batches, generator=generator(), **options), expected)


@pytest.mark.parametrize("method", METHODS)
def test_loss_is_the_mean_so_repeating_the_data_changes_nothing(method):
    options = {"method": method, "rtol": TIGHT if method == "ggn" else 0.2}
    model, data = mlp(), vectors()
    once = hessian_trace(model, CrossEntropy(), [data], generator=generator(), **options)
    thrice = hessian_trace(model, CrossEntropy(), [data] * 3, generator=generator(), **options)
    assert thrice.total.value == pytest.approx(once.total.value, **APPROX)
    assert (once.total.samples, thrice.total.samples) == (12, 36)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda outputs, labels: outputs.sum(1), id="sum"),
        pytest.param(lambda outputs, labels: torch.zeros(len(outputs)), id="constant"),
        pytest.param(HingeLoss(), id="hinge"),
    ],
)
def test_linear_model_with_linear_loss_has_no_curvature(loss, method):
    torch.manual_seed(0)
    found = hessian_trace(MLP([4, CLASSES]).double(), loss, [vectors()], method=method)
    assert (found.total.value, found.total.standard_error) == (0, 0)
    assert [estimate.value for estimate in found.per_tensor.values()] == [0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_an_unused_parameter_has_no_curvature(method):
    model = mlp()
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    model.aside = nn.Linear(2, 2).double()
    found = hessian_trace(model, CrossEntropy(), [vectors()], method=method, rtol=0.2)
    for name in ("unused", "aside.weight", "aside.bias"):
        assert (found.per_tensor[name].value, found.per_tensor[name].standard_error) == (0, 0)
    assert found.total.value != 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", RELU)
def test_tensors_sum_to_the_total(case, method):
    make, data, loss = RELU[case]
    found = hessian_trace(make(), loss, [data()], method=method, rtol=0.3)
    assert sum(e.value for e in found.per_tensor.values()) == pytest.approx(found.total.value, **APPROX)
    assert {(e.probes, e.samples) for e in found.per_tensor.values()} == {(found.total.probes, found.total.samples)}


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_probes_come_from_the_generator(method):
    def value(source):
        options = {"method": method, "rtol": 0.3, "generator": source}
        return hessian_trace(mlp("tanh"), CrossEntropy(), [vectors()], **options).total.value

    assert value(generator(0)) == value(generator(0)) == value(None)
    assert value(generator(1)) != value(generator(0))


def test_curvature_is_that_of_eval_mode_whatever_the_mode():
    torch.manual_seed(0)
    model, data = Noisy().double(), vectors()
    for method in METHODS:
        training = hessian_trace(model.train(), CrossEntropy(), [data], method=method, rtol=0.2)
        assert training == hessian_trace(model.eval(), CrossEntropy(), [data], method=method, rtol=0.2)


# What is left as it was.


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("training", [True, False], ids=["train-mode", "eval-mode"])
def test_model_and_random_state_are_not_changed(training, method):
    torch.manual_seed(0)
    model = Noisy()
    if not training:
        model.eval()
    before = snapshot(model)
    hessian_trace(model, CrossEntropy(), DrawingBatches(), method=method, rtol=0.5)
    assert_same(before, snapshot(model))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def failing(outputs, labels):
    raise KeyError("loss")


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_model_and_random_state_are_not_changed_after_an_error(method):
    torch.manual_seed(0)
    model = Noisy()
    before = snapshot(model)
    with pytest.raises(KeyError):
        hessian_trace(model, failing, DrawingBatches(), method=method)
    assert_same(before, snapshot(model))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_works_with_gradients_off(context, method):
    options = {"method": method, "rtol": 0.2}
    model, (inputs, labels) = conv_net(), images()
    targets = torch.nn.functional.one_hot(labels, CLASSES).double()
    expected = hessian_trace(model, LogisticLoss(), [(inputs, targets)], **options)
    with context():
        # As a data module on the device makes them.
        batches = [(inputs.clone(), targets.clone())]
        found = hessian_trace(model, LogisticLoss(), batches, **options)
        assert not torch.is_grad_enabled()
    assert found == expected
    assert found.total.value != 0
