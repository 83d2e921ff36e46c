"""Models, losses and data whose gradients are refused by all measures of gradients."""

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, SquaredLoss
from lnsgd.measures import NonFiniteError, example_gradient_norms, gradient_norm
from tests.measures.small_problems import mlp, vectors

pytestmark = pytest.mark.parametrize("measure", [gradient_norm, example_gradient_norms])


class Classes(nn.Linear):
    """A network that returns classes instead of logits."""

    def __init__(self):
        super().__init__(4, 3, dtype=torch.float64)

    def forward(self, x):
        return super().forward(x).argmax(1)


@pytest.mark.parametrize(
    ("model", "loss", "data", "match"),
    [
        pytest.param(mlp, CrossEntropy(), [], "no examples", id="no-batches"),
        pytest.param(mlp, CrossEntropy(), [vectors(0)], "no examples", id="empty-batch"),
        pytest.param(mlp, CrossEntropy(), iter([vectors()]), "read only once", id="one-shot"),
        pytest.param(mlp, nn.CrossEntropyLoss(), [vectors()], "must be per example", id="mean-loss"),
        pytest.param(lambda: mlp().requires_grad_(False), CrossEntropy(), [vectors()], "no trainable", id="frozen"),
        pytest.param(Classes, CrossEntropy(), [vectors()], "gives torch.int64", id="integer-outputs"),
    ],
)
def test_unusable_models_losses_and_data_raise(measure, model, loss, data, match):
    with pytest.raises(ValueError, match=match):
        measure(model(), loss, data)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_raise(measure, value):
    inputs, labels = vectors()
    with pytest.raises(NonFiniteError, match="not finite"):
        measure(mlp("tanh"), SquaredLoss("sum"), [(inputs * value, labels)])


def test_an_infinite_loss_with_a_finite_gradient_raises(measure):
    with pytest.raises(NonFiniteError, match="not finite"):
        measure(mlp(), lambda outputs, _: outputs.sum(1) + torch.inf, [vectors()])
