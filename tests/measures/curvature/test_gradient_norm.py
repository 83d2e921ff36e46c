"""The gradient's norm against one backward pass over all data, and that nothing else changes."""

import copy

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, LogisticLoss, SquaredLoss
from lnsgd.measures import gradient_norm
from tests.measures.small_problems import (
    DrawingBatches,
    Noisy,
    assert_same,
    conv_net,
    images,
    in_processes,
    mlp,
    part,
    snapshot,
    vectors,
)
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}
CASES = [
    pytest.param(lambda: mlp("relu"), vectors, CrossEntropy(), id="relu-cross-entropy"),
    pytest.param(lambda: mlp("tanh"), vectors, SquaredLoss("sum"), id="tanh-squared"),
    pytest.param(lambda: mlp("cubic", nu=0.5, train_layers=[0]), vectors, LogisticLoss(), id="cubic-frozen-head"),
    pytest.param(conv_net, images, CrossEntropy(), id="conv-batchnorm"),
]


def norms_by_backward(model, loss, inputs, labels):
    """Compute norms by tensor from ``.grad`` of a copy in eval mode."""
    model = copy.deepcopy(model).double().eval()
    model.zero_grad()
    loss(model(inputs.double()), labels).mean().backward()
    return {name: p.grad.norm().item() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("make", "data", "loss"), CASES)
def test_total_and_each_tensor(make, data, loss):
    model, data = make(), data()
    expected = norms_by_backward(model, loss, *data)
    found = gradient_norm(model, loss, [data])
    assert found.per_tensor == pytest.approx(expected, **APPROX)
    assert found.total == pytest.approx(sum(norm**2 for norm in expected.values()) ** 0.5, **APPROX)
    assert found.samples == len(data[0])


def test_of_squared_loss_of_a_linear_network_in_closed_form():
    # Of (1/n)Σ_i ‖Wx_i − y_i‖² the gradient is (2/n)Σ_i (Wx_i − y_i)x_iᵀ.
    x, y = vectors(20)[0], torch.randn(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model = nn.Linear(4, 3, bias=False).double()
    gradient = 2 / 20 * (x @ model.weight.T - y).T @ x
    found = gradient_norm(model, lambda outputs, targets: (outputs - targets).square().sum(1), [(x, y)])
    assert found.total == pytest.approx(gradient.norm().item(), **APPROX)


@pytest.mark.parametrize("sizes", [[6, 6], [1, 8, 3], [1] * 12], ids=["equal", "unequal", "single-examples"])
def test_batches_of_any_size_give_the_norm_of_one_batch(sizes):
    batches = list(zip(*(tensor.split(sizes) for tensor in vectors())))
    expected = gradient_norm(mlp(), CrossEntropy(), [vectors()])
    found = gradient_norm(mlp(), CrossEntropy(), batches)
    assert found.per_tensor == pytest.approx(expected.per_tensor, **APPROX)
    assert found.samples == 12


def test_loss_is_the_mean_so_repeating_the_data_changes_nothing():
    once, thrice = (gradient_norm(mlp(), CrossEntropy(), [vectors()] * times) for times in (1, 3))
    assert thrice.total == pytest.approx(once.total, **APPROX)


@pytest.mark.parametrize("sizes", [[12], [5, 6, 1]], ids=["one-batch", "batch-of-one"])
def test_two_processes_find_what_one_does(sizes):
    batches, models = list(zip(*(tensor.split(sizes) for tensor in vectors()))), [mlp(), mlp()]
    expected = gradient_norm(models[0], CrossEntropy(), batches)
    for found in in_processes(lambda s: gradient_norm(models[s.rank], CrossEntropy(), part(batches, s), share=s)):
        assert found.per_tensor == pytest.approx(expected.per_tensor, **APPROX)
        assert (found.total, found.samples) == (pytest.approx(expected.total, **APPROX), 12)


def test_an_unused_parameter_has_no_gradient():
    model = mlp()
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    found = gradient_norm(model, CrossEntropy(), [vectors()])
    assert found.per_tensor["unused"] == 0.0
    assert found.total == gradient_norm(mlp(), CrossEntropy(), [vectors()]).total


@pytest.mark.parametrize("training", [True, False], ids=["train-mode", "eval-mode"])
def test_model_and_random_state_are_not_changed(training):
    torch.manual_seed(0)
    model = Noisy()
    if not training:
        model.eval()
    before = snapshot(model)
    gradient_norm(model, CrossEntropy(), DrawingBatches())
    assert_same(before, snapshot(model))


def test_gradient_is_that_of_eval_mode_whatever_the_mode():
    torch.manual_seed(0)
    model = Noisy().double()
    expected = norms_by_backward(model, CrossEntropy(), *vectors())
    for mode in (True, False):
        found = gradient_norm(model.train(mode), CrossEntropy(), [vectors()])
        assert found.per_tensor == pytest.approx(expected, **APPROX)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_works_with_gradients_off(context):
    model, data = conv_net(), images()
    expected = gradient_norm(model, CrossEntropy(), [data])
    with context():
        assert gradient_norm(model, CrossEntropy(), [data]) == expected


def test_a_loss_independent_of_the_weights_has_no_gradient():
    assert gradient_norm(mlp(), lambda outputs, _: torch.ones(len(outputs)), [vectors()]).total == 0.0
