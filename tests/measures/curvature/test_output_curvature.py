"""Roots of the second derivatives of losses by the outputs, in the form that they have."""

import math

import pytest
import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.measures.curvature.output_curvature import WHOLE, Form, OutputCurvature, forms
from tests.measures.small_problems import generator
from tests.tolerances import EXACT


def curvature_of(loss, outputs, labels):
    outputs = outputs.clone().requires_grad_()
    return OutputCurvature(loss(outputs, labels), [get_gradient_edge(outputs)], outputs)


def output_roots(loss, outputs, labels, form=WHOLE):
    """Return the matrices of the root's functions, shape (B, C, C); `None` if the form is another one."""
    root = curvature_of(loss, outputs, labels).root(form)
    size = outputs[0].numel()
    units = torch.eye(size, dtype=outputs.dtype)

    def matrices(function):
        return torch.stack([function(unit.expand(len(outputs), -1)) for unit in units], dim=-1)

    return root and (matrices(root.positive), root.negative and matrices(root.negative))


def saddle(outputs, labels):
    return (outputs[:, 0] * outputs[:, 1]).sin() + outputs.square().sum(1) * labels


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(CrossEntropy(), id="cross-entropy"),
        pytest.param(LogisticLoss(), id="logistic"),
        pytest.param(SquaredLoss(), id="squared"),
        pytest.param(HingeLoss(), id="hinge"),
        pytest.param(saddle, id="saddle"),
        pytest.param(lambda outputs, labels: outputs.sum(1), id="linear"),
        pytest.param(lambda outputs, labels: torch.zeros(len(outputs)), id="constant"),
    ],
)
def test_roots_give_the_hessian_of_each_example(loss):
    outputs = torch.randn(5, 4, generator=generator(), dtype=torch.float64)
    labels = torch.arange(5) % 3
    positive, negative = output_roots(loss, outputs, labels)
    assert (negative is not None) == (loss is saddle)
    for root in filter(lambda root: root is not None, (positive, negative)):
        torch.testing.assert_close(root, root.mT, **EXACT)
        assert torch.linalg.eigvalsh(root).min() >= -1e-12
    found = positive @ positive - (0 if negative is None else negative @ negative)
    for i in range(5):
        expected = torch.autograd.functional.hessian(lambda o, i=i: loss(o[None], labels[i : i + 1]).sum(), outputs[i])
        torch.testing.assert_close(found[i], expected, **EXACT)


@pytest.mark.parametrize("loss", [CrossEntropy(), LogisticLoss(), saddle], ids=["cross-entropy", "logistic", "saddle"])
def test_roots_are_continuous_in_the_outputs(loss):
    """Equal outputs of several classes make equal eigenvalues, whose eigenvectors any rounding would turn."""
    outputs = torch.tensor([[0.3, 0.3, 0.3, -1.0], [2.0, 2.0, -2.0, -2.0]], dtype=torch.float64)
    labels = torch.tensor([0, 3])
    nearby = outputs + 1e-12 * torch.randn(outputs.shape, generator=generator(), dtype=torch.float64)
    for root, other in zip(output_roots(loss, outputs, labels), output_roots(loss, nearby, labels)):
        if root is not None:
            torch.testing.assert_close(root, other, rtol=0, atol=1e-7)  # √ of rounding in an eigenvalue 0


@pytest.mark.parametrize("scale", [0.1, 1, 5, 20])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_rounding_gives_cross_entropy_no_negative_curvature(classes, scale):
    # In float32, and also where a sure network leaves hardly any curvature.
    outputs = torch.randn(64, classes, generator=generator()) * scale
    root, negative = output_roots(CrossEntropy(), outputs, torch.arange(64) % classes)
    assert negative is None
    p = outputs.double().softmax(1)
    expected = (p - p.square()).sum()
    torch.testing.assert_close(root.double().square().sum(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_and_losses_that_are_not_finite_give_nan(bad):
    outputs = torch.ones(2, 3)
    outputs[0, 0] = bad
    root, _ = output_roots(SquaredLoss(), outputs, torch.zeros(2, dtype=torch.long))
    assert root.isnan().any()
    root, _ = output_roots(lambda o, labels: o.sum(1) + bad, torch.ones(2, 3), torch.zeros(2))
    assert root.isnan().any()


def per_pixel(loss):
    """The mean over pixels of a loss of outputs (B, C, H, W) and labels (B, H, W)."""
    return lambda outputs, labels: loss(outputs, labels).mean((1, 2))


def soft_dice(outputs, labels):
    probabilities, own = outputs.softmax(1)[:, 1], (labels == 1).to(outputs)
    return 1 - 2 * (probabilities * own).sum((1, 2)) / (probabilities + own).sum((1, 2))


def focal(outputs, labels):
    own = outputs.softmax(1).gather(1, labels[:, None])[:, 0]
    return (1 - own) ** 2 * nn.functional.cross_entropy(outputs, labels, reduction="none")


def two_hot(outputs, labels):
    return nn.functional.binary_cross_entropy_with_logits(outputs, one_hot(labels), reduction="none").mean(1)


def one_hot(labels):
    return nn.functional.one_hot(labels, CLASSES).permute(0, 3, 1, 2).double()


CLASSES, SIDE = 3, 5
FORMS = {
    "cross-entropy": (per_pixel(nn.CrossEntropyLoss(reduction="none")), Form("softmax", 0)),
    "weighted": (
        per_pixel(nn.CrossEntropyLoss(reduction="none", weight=torch.tensor([1.0, 2, 0.3]).double(), ignore_index=1)),
        Form("softmax", 0),
    ),
    "smoothed": (per_pixel(nn.CrossEntropyLoss(reduction="none", label_smoothing=0.2)), Form("softmax", 0)),
    "log-softmax": (
        per_pixel(lambda o, t: nn.functional.nll_loss(o.log_softmax(1), t, reduction="none")),
        Form("softmax", 0),
    ),
    "binary": (per_pixel(two_hot), Form("diagonal")),
    "squared": (lambda o, t: (o - one_hot(t)).square().mean((1, 2, 3)), Form("diagonal")),
    "hinge": (per_pixel(lambda o, t: (1 - o.gather(1, t[:, None])).relu()[:, 0]), Form("diagonal")),
    "focal": (per_pixel(focal), Form("block", 0)),
    "dice": (soft_dice, WHOLE),
}


@pytest.mark.parametrize("case", FORMS)
def test_dense_outputs_have_the_root_of_the_first_form_that_fits(case):
    loss, expected = FORMS[case]
    source = generator()
    outputs = 2 * torch.randn(2, CLASSES, SIDE, SIDE, generator=source, dtype=torch.float64)
    labels = torch.randint(CLASSES, (2, SIDE, SIDE), generator=source)
    fitting = [form for form in forms(outputs.shape[1:]) if output_roots(loss, outputs, labels, form)]
    assert fitting[0] == expected
    dense = [
        torch.autograd.functional.hessian(lambda o, i=i: loss(o[None], labels[i : i + 1]).sum(), outputs[i])
        for i in range(2)
    ]
    for form in fitting:
        positive, negative = output_roots(loss, outputs, labels, form)
        found = positive @ positive.mT - (0 if negative is None else negative @ negative.mT)
        torch.testing.assert_close(found, torch.stack(dense).view_as(found), **EXACT)
