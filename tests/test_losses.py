"""Losses against naive references, with gradients, conventions, and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsgd.label_noise import GaussianNoise, LabelSmoothing, NoNoise, UniformNoise
from lnsgd.losses import (
    CrossEntropy,
    HingeLoss,
    LogisticLoss,
    SquaredLoss,
    check_compatible,
    class_probabilities,
    num_classes_of,
    predicted_classes,
)
from tests.reference import losses as naive
from tests.tolerances import EXACT

# Name: the loss, its naive reference, whether it takes soft targets, whether it takes a single output.
LOSSES = {
    "cross-entropy": (CrossEntropy(), naive.cross_entropy, True, False),
    "logistic": (LogisticLoss(), naive.logistic, True, True),
    "hinge": (HingeLoss(), lambda o, t: naive.hinge(o, t, beta=1.0), False, True),
    "hinge-0.3": (HingeLoss(0.3), lambda o, t: naive.hinge(o, t, beta=0.3), False, True),
    "perceptron": (HingeLoss(0), lambda o, t: naive.hinge(o, t, beta=0.0), False, True),
    "squared-mean": (SquaredLoss(), lambda o, t: naive.squared(o, t, "mean"), True, True),
    "squared-sum": (SquaredLoss("sum"), lambda o, t: naive.squared(o, t, "sum"), True, True),
}
# Every loss with every kind of target and number of outputs that it is defined for.
CASES = [
    pytest.param(loss, reference, kind, width, id=f"{name}-{kind}-{width}")
    for name, (loss, reference, takes_soft, takes_single) in LOSSES.items()
    for kind in ("hard", "soft")
    for width in (1, 2, 3, 10)
    if (kind == "hard" or takes_soft) and (width > 1 or takes_single)
]
B = 8


def random_outputs(width, batch=B):
    draws = np.random.default_rng(0).normal(scale=2.0, size=(batch, width))
    return torch.tensor(draws, dtype=torch.float64)


def random_targets(kind, width, batch=B):
    """Draw hard (B,) or soft (B, C) targets for so many outputs; a single output has two classes."""
    rng, classes = np.random.default_rng(1), max(2, width)
    if kind == "hard":
        return torch.tensor(rng.integers(classes, size=batch))
    return torch.tensor(rng.dirichlet(np.ones(classes), size=batch))


def assert_close(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, **EXACT)


@pytest.mark.parametrize("loss, reference, kind, width", CASES)
def test_value_is_that_of_the_naive_reference(loss, reference, kind, width):
    outputs, targets = random_outputs(width), random_targets(kind, width)
    expected = [reference(o, t) for o, t in zip(outputs.tolist(), targets.tolist())]
    actual = loss(outputs, targets)
    assert actual.shape == (B,)
    assert_close(actual, expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_squared_loss_of_real_targets(width, reduction):
    outputs, targets = random_outputs(width), random_outputs(width).flip(0)
    expected = [naive.squared_to(o, t, reduction) for o, t in zip(outputs.tolist(), targets.tolist())]
    assert_close(SquaredLoss(reduction)(outputs, targets), expected)


@pytest.mark.parametrize("loss, reference, kind, width", CASES)
def test_gradient_is_that_of_finite_differences(loss, reference, kind, width):
    outputs, targets = random_outputs(width, batch=3).requires_grad_(), random_targets(kind, width, batch=3)
    assert torch.autograd.gradcheck(lambda o: loss(o, targets), outputs)


@pytest.mark.parametrize("loss, reference, kind, width", CASES)
def test_examples_do_not_mix(loss, reference, kind, width):
    outputs, targets = random_outputs(width), random_targets(kind, width)
    alone = torch.cat([loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(B)])
    assert_close(loss(outputs, targets), alone.numpy())


@pytest.mark.parametrize("loss, reference, kind, width", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_loss_is_of_the_outputs_type(loss, reference, kind, width, dtype):
    targets = random_targets(kind, width)
    targets = targets.float() if kind == "soft" else targets  # as label smoothing gives them
    assert loss(random_outputs(width).to(dtype), targets).dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("width", [1, 2, 5])
def test_predicted_class_has_the_smallest_loss(name, width):
    # All losses here fall as the output of the target's class grows: this fixes every sign convention.
    loss, _, _, takes_single = LOSSES[name]
    if width == 1 and not takes_single:
        width = 3
    outputs = random_outputs(width, batch=50)
    classes = range(num_classes_of(outputs))
    by_class = torch.stack([loss(outputs, torch.full((50,), c)) for c in classes], 1)
    assert torch.equal(by_class.argmin(1), predicted_classes(outputs))


# Soft targets are expectations.


@given(
    st.sampled_from([CrossEntropy(), LogisticLoss()]),
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0.01, 1)), min_size=1, max_size=6),
    st.floats(0, 1),
)
@settings(max_examples=50, deadline=None)
def test_soft_target_loss_is_the_expected_hard_target_loss(loss, pairs, negative_weight):
    if len(pairs) == 1 and isinstance(loss, CrossEntropy):
        pairs = pairs * 2
    outputs = torch.tensor([[o for o, _ in pairs]], dtype=torch.float64)
    weights = [w for _, w in pairs] if len(pairs) > 1 else [negative_weight, pairs[0][1]]
    probabilities = [w / sum(weights) for w in weights]
    expectation = sum(q * loss(outputs, torch.tensor([c])).item() for c, q in enumerate(probabilities))
    soft = loss(outputs, torch.tensor([probabilities], dtype=torch.float64))
    assert_close(soft, [expectation])


@pytest.mark.parametrize("loss, reference, kind, width", [case for case in CASES if case.values[2] == "soft"])
def test_onehot_soft_target_is_the_hard_target(loss, reference, kind, width):
    outputs, hard = random_outputs(width), random_targets("hard", width)
    onehot = torch.eye(max(2, width), dtype=torch.float64)[hard]
    assert_close(loss(outputs, onehot), loss(outputs, hard).numpy())


# Large outputs.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "output, label, value, slope",
    [(1000.0, 1, 0.0, 0.0), (-1000.0, 1, 1000.0, -1.0), (1000.0, 0, 1000.0, 1.0), (-1000.0, 0, 0.0, 0.0)],
    ids=["+1000, y = +1", "-1000, y = +1", "+1000, y = -1", "-1000, y = -1"],
)
def test_logistic_loss_of_a_large_output(output, label, value, slope, dtype):
    # log(1 + exp(1000)) = 1000 and log(1 + exp(−1000)) = 0 to within 1e-400: exact in either type.
    outputs = torch.tensor([[output]], dtype=dtype, requires_grad=True)
    loss = LogisticLoss()(outputs, torch.tensor([label]))
    loss.sum().backward()
    assert (loss.item(), outputs.grad.item()) == (value, slope)


@pytest.mark.parametrize("output, expected", [(1000.0, 750.0), (-1000.0, 250.0)], ids=["+1000", "-1000"])
def test_logistic_loss_of_a_large_output_and_soft_target(output, expected):
    # q = ¼ for y = +1.
    loss = LogisticLoss()(torch.tensor([[output]]), torch.tensor([[0.75, 0.25]]))
    assert loss.item() == expected


def test_logistic_loss_sums_over_large_outputs():
    loss = LogisticLoss()(torch.tensor([[1000.0, -1000.0, 1000.0]]), torch.tensor([1]))
    assert loss.item() == 3000.0


@pytest.mark.parametrize("label, expected", [(0, 0.0), (1, 2000.0)], ids=["right", "wrong"])
def test_cross_entropy_of_large_outputs(label, expected):
    assert CrossEntropy()(torch.tensor([[1000.0, -1000.0]]), torch.tensor([label])).item() == expected


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_hinge_loss_is_flat_beyond_its_margin(beta):
    outputs = torch.tensor([[beta + 0.1, -beta - 0.1]], requires_grad=True)
    loss = HingeLoss(beta)(outputs, torch.tensor([0]))
    loss.sum().backward()
    assert loss.item() == 0.0
    assert outputs.grad.tolist() == [[0.0, 0.0]]


# Which losses take which label noise.

NOISES = {
    "no noise": NoNoise(),
    "uniform": UniformNoise(0.1),
    "smoothing": LabelSmoothing(0.1),
    "gaussian": GaussianNoise(0.1),
}
COMPATIBLE = {
    CrossEntropy: {"no noise", "uniform", "smoothing"},
    LogisticLoss: {"no noise", "uniform", "smoothing"},
    HingeLoss: {"no noise", "uniform"},
    SquaredLoss: {"no noise", "uniform", "smoothing", "gaussian"},
}
ALLOWED = [(loss, noise) for loss, noises in COMPATIBLE.items() for noise in NOISES if noise in noises]
REFUSED = [(loss, noise) for loss, noises in COMPATIBLE.items() for noise in NOISES if noise not in noises]


def pair_ids(pairs):
    return [f"{loss.__name__}-{noise}" for loss, noise in pairs]


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("loss, noise", ALLOWED, ids=pair_ids(ALLOWED))
def test_allowed_pair_gives_a_finite_loss(loss, noise, width):
    check_compatible(loss(), NOISES[noise])
    if loss is CrossEntropy and width == 1:
        width = 2
    outputs = random_outputs(width)
    targets = NOISES[noise](random_targets("hard", width), torch.Generator(), num_classes_of(outputs))
    values = loss()(outputs, targets)
    assert values.shape == (B,)
    assert values.isfinite().all()


@pytest.mark.parametrize("loss, noise", REFUSED, ids=pair_ids(REFUSED))
def test_refused_pair_is_named(loss, noise):
    kind = NOISES[noise].targets
    message = f"{loss.__name__} takes .* targets, but {type(NOISES[noise]).__name__} gives {kind} ones"
    with pytest.raises(ValueError, match=message):
        check_compatible(loss(), NOISES[noise])


# Conventions and errors.


@pytest.mark.parametrize(
    "outputs, targets, expected",
    [
        ([[0.0, 0.0, 0.0]], torch.tensor([2]), [[0.0, 0.0, 1.0]]),
        ([[0.0, 0.0, 0.0]], torch.tensor([[0.2, 0.3, 0.5]]), [[0.2, 0.3, 0.5]]),
        ([[0.0], [0.0]], torch.tensor([1, 0]), [[1.0], [0.0]]),
        ([[0.0], [0.0]], torch.tensor([[0.25, 0.75], [1.0, 0.0]]), [[0.75], [0.0]]),
    ],
    ids=["hard", "soft", "hard, one output", "soft, one output"],
)
def test_class_probabilities(outputs, targets, expected):
    probabilities = class_probabilities(torch.tensor(outputs, dtype=torch.float32), targets)
    assert torch.equal(probabilities, torch.tensor(expected))


@pytest.mark.parametrize(
    "outputs, expected",
    [
        ([[1.0, 3.0, 2.0], [-1.0, -3.0, -2.0]], [1, 0]),
        ([[0.5], [-0.5], [0.0], [-1e-30], [1e-30]], [1, 0, 0, 0, 1]),
    ],
    ids=["largest", "sign of one"],
)
def test_predicted_classes(outputs, expected):
    predicted = predicted_classes(torch.tensor(outputs))
    assert predicted.dtype == torch.int64
    assert predicted.tolist() == expected


@pytest.mark.parametrize("width, classes", [(1, 2), (2, 2), (3, 3), (10, 10)])
def test_num_classes_of(width, classes):
    assert num_classes_of(torch.zeros(4, width)) == classes


def test_cross_entropy_refuses_a_single_output():
    with pytest.raises(ValueError, match="CrossEntropy needs one output per class"):
        CrossEntropy()(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("beta", [-1.0, float("nan")])
def test_hinge_loss_refuses_a_margin(beta):
    with pytest.raises(ValueError, match=f"HingeLoss: beta = {beta}"):
        HingeLoss(beta)


@pytest.mark.parametrize("reduction", ["none", "Mean"])
def test_squared_loss_refuses_a_reduction(reduction):
    with pytest.raises(ValueError, match=f"SquaredLoss: reduction = '{reduction}'; choose mean or sum"):
        SquaredLoss(reduction)
