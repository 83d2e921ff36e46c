"""Class association against loops, its ties and thresholds, and the histograms."""

import pytest
import torch
from matplotlib.colors import to_rgba
from torch import nn

from lnsgd.measures import ClassAssociation, associated_class
from tests.reference.measures import associated_loop, conv_loop, firings_loop, linear_loop

CLASSES = 4


def linear_data():
    """Layer, inputs, labels of unequal frequency and the brute-force pre-activations."""
    torch.manual_seed(0)
    layer, inputs = nn.Linear(6, 15).double(), torch.randn(40, 6, dtype=torch.float64)
    # Shifting the inputs by the class makes some units belong to a class.
    labels = torch.tensor([0] * 20 + [1] * 10 + [2] * 7 + [3] * 3)[torch.randperm(40)]
    inputs[torch.arange(40), labels] += 4
    return layer, inputs, labels, linear_loop(inputs, layer.weight, layer.bias)


def conv_data():
    """The same for a convolution: 2 channels of 3 × 2 positions."""
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
def test_metric_equals_a_triple_loop(make, units, rates, sizes):
    layer, inputs, labels, looped = make()
    metric = ClassAssociation(CLASSES, units, threshold=1.5, rates=rates)
    for batch, batch_labels in zip(inputs.split(sizes), labels.split(sizes)):
        metric.update(layer(batch), batch_labels)
    firings = firings_loop(looped, labels.tolist(), CLASSES)
    assert metric.fired.tolist() == firings
    assert metric.examples.tolist() == labels.bincount(minlength=CLASSES).tolist()
    if rates:
        firings = [[count / n for count in row] for row, n in zip(firings, metric.examples.tolist())]
    expected = associated_loop(firings, 1.5)
    owned = sum(c >= 0 for c in expected)
    assert metric.classes().tolist() == expected
    assert (metric.compute().count, metric.compute().fraction) == (owned, owned / units)


def test_the_linear_data_has_units_of_both_kinds():
    _, _, labels, looped = linear_data()
    owned = [c >= 0 for c in associated_loop(firings_loop(looped, labels.tolist(), CLASSES), 1.5)]
    assert any(owned)
    assert not all(owned)


@pytest.mark.parametrize("threshold", [1.0, 2.0])
def test_a_neuron_that_never_fires_belongs_to_no_class(threshold):
    assert associated_class(torch.zeros(10, 3), threshold).tolist() == [-1, -1, -1]
    metric = ClassAssociation(10, 3, threshold)
    metric.update(-torch.ones(50, 3), torch.arange(50) % 10)
    assert (metric.compute().count, metric.compute().fraction) == (0, 0.0)


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
    counts, rates = ClassAssociation(2, 2), ClassAssociation(2, 2, rates=True)
    counts.update(fires, labels)
    rates.update(fires, labels)
    assert counts.classes().tolist() == [0, -1]
    assert rates.classes().tolist() == [-1, 1]
    assert rates.firings().tolist() == [[6 / 9, 2 / 9], [1.0, 2 / 3]]


@pytest.mark.parametrize("threshold", [0.999, 0.0, -2.0])
def test_threshold_below_one_raises(threshold):
    with pytest.raises(ValueError, match=f"threshold = {threshold}"):
        associated_class(torch.ones(3, 2), threshold)


def test_one_class_raises():
    with pytest.raises(ValueError, match="at least two classes"):
        associated_class(torch.ones(1, 5))


def seen_metric(neurons):
    """A metric with random firings, some neurons associated and some not."""
    generator = torch.Generator().manual_seed(0)
    metric = ClassAssociation(CLASSES, neurons)
    metric.update(torch.randn(16, neurons, generator=generator), torch.arange(16) % CLASSES)
    return metric


@pytest.mark.parametrize(
    ("neurons", "shown", "expected"),
    [
        pytest.param(4, 30, 4, id="fewer-than-a-row"),
        pytest.param(23, 30, 23, id="unfilled-last-row"),
        pytest.param(23, 6, 6, id="only-the-first"),
    ],
)
def test_histograms_draw_one_axis_per_neuron(neurons, shown, expected):
    figure = seen_metric(neurons).histograms(shown)
    drawn = [axis for axis in figure.axes if axis.axison]
    assert len(drawn) == expected
    assert all(len(axis.patches) == CLASSES for axis in drawn)
    assert not any(axis.patches for axis in figure.axes if not axis.axison)


def test_histogram_bars_are_the_firings_and_red_exactly_at_the_associated_class():
    metric = seen_metric(23)
    classes = metric.classes().tolist()
    assert -1 in classes
    assert max(classes) >= 0
    for unit, axis in enumerate(metric.histograms().axes[:23]):
        assert [bar.get_height() for bar in axis.patches] == metric.fired[:, unit].tolist()
        red = [c for c, bar in enumerate(axis.patches) if bar.get_facecolor() == to_rgba("tab:red")]
        assert red == ([classes[unit]] if classes[unit] >= 0 else [])
