"""Norms of single examples' gradients against a loop over the examples."""

import copy

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, LogisticLoss, SquaredLoss
from lnsgd.measures import example_gradient_norms, gradient_norm
from tests.measures.small_problems import (
    CLASSES,
    DrawingBatches,
    Noisy,
    assert_same,
    conv_net,
    images,
    mlp,
    snapshot,
    vectors,
)
from tests.tolerances import EXACT


def norms_loop(model, loss, inputs, labels):
    """Compute norms by tensor, with one backward pass for each example, in a copy in eval mode."""
    model = copy.deepcopy(model).double().eval()
    norms = {name: [] for name, p in model.named_parameters() if p.requires_grad}
    for i in range(len(inputs)):
        model.zero_grad()
        loss(model(inputs[i : i + 1].double()), labels[i : i + 1]).sum().backward()
        for name in norms:
            gradient = model.get_parameter(name).grad
            norms[name].append(0.0 if gradient is None else gradient.norm().item())
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in norms.items()}


class Normed(nn.Module):
    """A network with a layer without a rule, and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.twice(torch.tanh(self.twice(x)))))


def normed():
    torch.manual_seed(0)
    return Normed().double()


@pytest.mark.parametrize("sizes", [[12], [5, 1, 6]], ids=["one-batch", "unequal-batches"])
@pytest.mark.parametrize(
    ("make", "data", "loss"),
    [
        pytest.param(lambda: mlp("relu"), vectors, CrossEntropy(), id="relu-cross-entropy"),
        pytest.param(lambda: mlp("tanh"), vectors, SquaredLoss("sum"), id="tanh-squared"),
        pytest.param(lambda: mlp("cubic", nu=0.5, train_layers=[0]), vectors, LogisticLoss(), id="cubic-frozen-head"),
        pytest.param(conv_net, lambda: images(12), CrossEntropy(), id="conv-batchnorm"),
        pytest.param(normed, vectors, CrossEntropy(), id="layers-without-rules"),
    ],
)
def test_every_example_and_tensor_in_the_order_of_the_data(make, data, loss, sizes):
    model, data = make(), data()
    expected = norms_loop(model, loss, *data)
    found = example_gradient_norms(model, loss, list(zip(*(tensor.split(sizes) for tensor in data))))
    assert found.per_tensor.keys() == expected.keys()
    for name, norms in expected.items():
        torch.testing.assert_close(found.per_tensor[name], norms, **EXACT)
    total = torch.stack(list(expected.values())).square().sum(0).sqrt()
    torch.testing.assert_close(found.total, total, **EXACT)


def test_larger_batches_than_are_differentiated_at_once():
    model, data = mlp("tanh"), vectors(150)
    found = example_gradient_norms(model, CrossEntropy(), [data])
    expected = norms_loop(model, CrossEntropy(), *data)
    torch.testing.assert_close(found.per_tensor["layers.0.weight"], expected["layers.0.weight"], **EXACT)


def test_one_example_has_the_norm_of_the_mean_loss():
    data = [vectors(1)]
    found = example_gradient_norms(mlp(), CrossEntropy(), data)
    assert found.total.item() == pytest.approx(gradient_norm(mlp(), CrossEntropy(), data).total, rel=1e-10)


def test_float32_networks_give_float64():
    inputs, labels = vectors()
    expected = example_gradient_norms(mlp(), CrossEntropy(), [(inputs, labels)]).total
    found = example_gradient_norms(mlp().float(), CrossEntropy(), [(inputs.float(), labels)]).total
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_loss_independent_of_the_outputs_has_no_gradient():
    found = example_gradient_norms(mlp(), lambda outputs, _: torch.ones(len(outputs)), [vectors()])
    assert found.total.tolist() == [0.0] * 12


@pytest.mark.parametrize("training", [True, False], ids=["train-mode", "eval-mode"])
def test_model_and_random_state_are_not_changed(training):
    torch.manual_seed(0)
    model = Noisy()
    if not training:
        model.eval()
    before = snapshot(model)
    example_gradient_norms(model, CrossEntropy(), DrawingBatches())
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_works_with_gradients_off(context):
    model, data = conv_net(), images()
    expected = example_gradient_norms(model, CrossEntropy(), [data]).total
    with context():
        assert torch.equal(example_gradient_norms(model, CrossEntropy(), [data]).total, expected)
