"""Class association against loops, with ties and thresholds."""

import math

import pytest
import torch
from torch import nn

from lnsgd.measures import Firings, associated_class, associated_count, channel_sums, class_firings
from tests.reference.measures import associated_loop, conv_loop, firings_loop, linear_loop

CLASSES = 4


def linear_data():
    """Return a layer, inputs, labels of unequal frequency and the brute-force pre-activations."""
    torch.manual_seed(0)
    layer, inputs = nn.Linear(6, 15).double(), torch.randn(40, 6, dtype=torch.float64)
    # Shifting the inputs by the class makes some units belong to a class.
    labels = torch.tensor([0] * 20 + [1] * 10 + [2] * 7 + [3] * 3)[torch.randperm(40)]
    inputs[torch.arange(40), labels] += 4
    return layer, inputs, labels, linear_loop(inputs, layer.weight, layer.bias)


def conv_data():
    """Return a convolution (2 channels of 3 × 2 positions), inputs, labels and the brute-force pre-activations."""
    torch.manual_seed(1)
    layer, images = nn.Conv2d(1, 2, 3).double(), torch.randn(40, 1, 5, 4, dtype=torch.float64)
    labels = torch.randint(CLASSES, (40,))
    images += labels.double().view(-1, 1, 1, 1)
    return layer, images, labels, conv_loop(images, layer.weight, layer.bias)


@pytest.mark.parametrize("threshold", [1.0, 1.5, 2.0, 4.0])
def test_function_equals_a_loop(threshold):
    generator = torch.Generator().manual_seed(0)
    # Small counts, so that ties, zeros and exact multiples are frequent.
    firings = torch.randint(5, (3, 400), generator=generator)
    expected = associated_loop(firings.tolist(), threshold)
    unique = [unit for unit in range(400) if threshold > 1 or (firings[:, unit] == firings[:, unit].max()).sum() == 1]
    found = associated_class(firings, threshold).tolist()
    assert [found[unit] for unit in unique] == [expected[unit] for unit in unique]
    assert -1 in found
    assert set(found) >= {0, 1, 2}


@pytest.mark.parametrize("sizes", [[40], [1, 30, 9], [1] * 40], ids=["one-batch", "unequal", "single-examples"])
@pytest.mark.parametrize("rates", [False, True], ids=["counts", "rates"])
@pytest.mark.parametrize(("make", "units"), [(linear_data, 15), (conv_data, 12)], ids=["linear", "conv"])
def test_counts_equal_a_triple_loop(make, units, rates, sizes):
    layer, inputs, labels, looped = make()
    firings = Firings(CLASSES, units)
    for batch, batch_labels in zip(inputs.split(sizes), labels.split(sizes)):
        firings.update(layer(batch), batch_labels)
    looped_firings = firings_loop(looped, labels.tolist(), CLASSES)
    assert firings.fired.tolist() == looped_firings
    assert firings.examples.tolist() == labels.bincount(minlength=CLASSES).tolist()
    if rates:
        looped_firings = [[count / n for count in row] for row, n in zip(looped_firings, firings.examples.tolist())]
    expected = associated_loop(looped_firings, 1.5)
    owned = sum(c >= 0 for c in expected)
    assert associated_class(class_firings(firings, rates), 1.5).tolist() == expected
    found = associated_count(firings, 1.5, rates)
    assert (found.count, found.fraction) == (owned, owned / units)


def test_the_linear_data_has_units_of_both_kinds():
    _, _, labels, looped = linear_data()
    owned = [c >= 0 for c in associated_loop(firings_loop(looped, labels.tolist(), CLASSES), 1.5)]
    assert any(owned)
    assert not all(owned)


@pytest.mark.parametrize("threshold", [1.0, 2.0])
def test_a_neuron_that_never_fires_belongs_to_no_class(threshold):
    assert associated_class(torch.zeros(10, 3), threshold).tolist() == [-1, -1, -1]
    firings = Firings(10, 3)
    firings.update(-torch.ones(50, 3), torch.arange(50) % 10)
    found = associated_count(firings, threshold)
    assert (found.count, found.fraction) == (0, 0.0)


@pytest.mark.parametrize(
    ("firings", "threshold", "expected"),
    [
        pytest.param([4, 2, 0], 2.0, 0, id="exactly-twice"),
        pytest.param([2, 0, 4], 2.0, 2, id="exactly-twice-last-class"),
        pytest.param([399, 200, 0], 2.0, -1, id="just-below-twice"),
        pytest.param([401, 200, 0], 2.0, 0, id="just-above-twice"),
        pytest.param([1, 0, 0], 100.0, 0, id="one-class-only"),
        pytest.param([5, 5, 0], 2.0, -1, id="two-equal-classes"),
        pytest.param([4, 2, 0], 2.5, -1, id="threshold-above"),
        pytest.param([3, 2, 2], 1.5, 0, id="threshold-below"),
        pytest.param([3, 2, 2], 2.0, -1, id="same-with-default"),
    ],
)
def test_threshold_and_ties(firings, threshold, expected):
    assert associated_class(torch.tensor(firings).unsqueeze(1), threshold).tolist() == [expected]


def test_default_threshold_is_two():
    firings = torch.tensor([[4, 399], [2, 200]])
    assert associated_class(firings).tolist() == [0, -1]


def test_counts_and_rates_differ_on_unbalanced_classes():
    # Nine examples of class 0, three of class 1. The unit fires on 6 of 9 and on 3 of 3: twice as
    # many firings for class 0, but a higher rate for class 1; the second unit on 2 of 9 and 2 of 3.
    labels = torch.tensor([0] * 9 + [1] * 3)
    fires = torch.tensor([[1.0] * 6 + [-1.0] * 3 + [1.0] * 3, [1.0] * 2 + [-1.0] * 7 + [1.0, 1.0, -1.0]]).T
    firings = Firings(2, 2)
    firings.update(fires, labels)
    assert associated_class(class_firings(firings)).tolist() == [0, -1]
    assert associated_class(class_firings(firings, rates=True)).tolist() == [-1, 1]
    assert class_firings(firings, rates=True).tolist() == [[6 / 9, 2 / 9], [1.0, 2 / 3]]


@pytest.mark.parametrize("threshold", [0.999, 0.0, -2.0])
def test_threshold_below_one_raises(threshold):
    with pytest.raises(ValueError, match=f"threshold = {threshold}"):
        associated_class(torch.ones(3, 2), threshold)


def test_one_class_raises():
    with pytest.raises(ValueError, match="at least two classes"):
        associated_class(torch.ones(1, 5))


def test_nothing_is_counted_without_examples():
    found = associated_count(Firings(CLASSES, 5))
    assert math.isnan(found.count) and math.isnan(found.fraction)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        pytest.param((4, 3, 3), 0, id="convolution"),
        pytest.param((3, 3, 4), 2, id="channels-last"),
        pytest.param((2, 2, 2), 0, id="ambiguous"),
        pytest.param((5, 4), 1, id="tokens-of-features"),
        pytest.param((4, 2, 3, 3), 0, id="volumes"),
    ],
)
def test_firings_of_a_channel_are_those_of_its_positions(shape, axis):
    values = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    by_hand = [[one.select(axis, channel).sum() for channel in range(shape[axis])] for one in values]
    assert torch.allclose(channel_sums(values.flatten(1), shape), torch.tensor(by_hand))
