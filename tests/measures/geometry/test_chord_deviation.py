"""Deviation from chords on known curves, and against a dense grid."""

from math import isnan

import numpy as np
import pytest

from lnsgd.measures.geometry import chord_deviation

# Three on a line, then a turn, then three on another.
INPUTS = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 6.0])
LABELS = np.array([0.0, 1.0, 2.0, 2.0, 1.0, 0.0])


def test_connecting_the_points_deviates_nowhere():
    assert chord_deviation(INPUTS, LABELS, INPUTS, LABELS) == 0


@pytest.mark.parametrize("at", [0.5, 1.0, 1.9, 5.5])
def test_a_spike_on_a_line_is_its_height(at):
    x = np.unique(np.concatenate([INPUTS, [at]]))
    y = np.interp(x, INPUTS, LABELS) + 0.3 * (x == at)
    assert chord_deviation(x, y, INPUTS, LABELS) == pytest.approx(0.3)


def test_deviations_at_a_turn_do_not_count():
    x = np.array([0.0, 2.0, 3.0, 4.0, 6.0])
    y = np.array([0.0, 2.0, 9.0, 2.0, 0.0])
    assert chord_deviation(x, y, INPUTS, LABELS) == 0


def test_the_chord_is_that_of_the_data():
    assert chord_deviation(INPUTS, LABELS + 0.25, INPUTS, LABELS) == pytest.approx(0.25)


def test_the_order_of_the_points_does_not_matter():
    shuffled = np.random.default_rng(0).permutation(len(INPUTS))
    x, y = np.array([0.0, 0.7, 6.0]), np.array([0.0, 2.0, 0.0])
    expected = chord_deviation(x, y, INPUTS, LABELS)
    assert expected > 0
    assert chord_deviation(x, y, INPUTS[shuffled], LABELS[shuffled]) == expected


def test_nan_without_three_points_on_a_line():
    assert isnan(chord_deviation(INPUTS, LABELS, INPUTS, INPUTS**2))
    assert isnan(chord_deviation(INPUTS, LABELS, INPUTS[:2], LABELS[:2]))


def test_rounding_to_single_precision_leaves_points_on_a_line():
    x = np.linspace(-1, 1, 12)
    y = 2 * x + 1 / 3
    rounded = chord_deviation(x, y, np.float32(x).astype(float), np.float32(y).astype(float))
    assert rounded == pytest.approx(0, abs=1e-6)


def test_a_nan_in_the_curve_is_not_hidden():
    y = LABELS.copy()
    y[1] = np.nan
    assert isnan(chord_deviation(INPUTS, y, INPUTS, LABELS))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_largest_distance_on_a_dense_grid(seed):
    draw = np.random.default_rng(seed)
    x = np.unique(np.concatenate([[0.0], draw.uniform(0, 6, 20), [6.0]]))
    y = draw.normal(size=len(x))
    grid = np.linspace(0, 6, 600_001)
    on_a_line = (grid <= 2) | (grid >= 4)
    expected = np.abs(np.interp(grid, x, y) - np.interp(grid, INPUTS, LABELS))[on_a_line].max()
    assert chord_deviation(x, y, INPUTS, LABELS) == pytest.approx(expected, abs=1e-3)
