"""Convexity changes of known piecewise-linear functions, and against the signs of their kinks."""

import itertools
from math import isnan

import numpy as np
import pytest

from lnsgd.measures.geometry import convexity_changes


def integrated(slopes, widths=None) -> tuple[np.ndarray, np.ndarray]:
    """Build the function with the given slopes."""
    widths = np.ones(len(slopes)) if widths is None else np.array(widths)
    steps = np.array(slopes, float) * widths
    return np.concatenate([[0], widths.cumsum()]), np.concatenate([[0], steps.cumsum()])


KNOWN = {
    "line": ([2.0], 0),
    "line-with-knots": ([2.0, 2.0, 2.0], 0),
    "convex": ([-1, 0, 1, 2], 0),
    "concave": ([3, 0, -1], 0),
    "zigzag": ([2, -2, 2], 1),
    "two-humps": ([1, -1, 1, -1], 2),
    "staircase": ([1, 0, 1, 0, 1, 0], 4),
    "plateaus-do-not-count": ([0, 1, 1, 0, 0, 1], 2),
    "within-the-tolerance": ([1, 1.05, 0.98, 1.04, 1.0], 0),
    "small-turns-on-the-way-up": ([0, 0.5, 0.45, 1, 0.95, 1.5], 0),
    "many-small-steps-add-up": ([*np.arange(0, 1, 0.05), *np.arange(1, 0, -0.05)], 1),
    "back-by-more-than-the-tolerance": ([0, 0.5, 0.35, 1], 2),
}


@pytest.mark.parametrize(("slopes", "changes"), KNOWN.values(), ids=KNOWN)
def test_known_functions(slopes, changes):
    assert convexity_changes(*integrated(slopes)) == changes


@pytest.mark.parametrize("seed", range(20))
def test_counts_the_changes_of_sign_of_kinks(seed):
    """With knots far apart and large kinks, nothing is left out."""
    draw = np.random.default_rng(seed)
    kinks = draw.choice([-1, 1], 12) * draw.uniform(0.2, 2, 12)
    slopes = np.concatenate([[0], kinks.cumsum()])
    expected = sum(one * two < 0 for one, two in itertools.pairwise(kinks))
    x, y = integrated(slopes, draw.uniform(0.1, 1, 13))
    assert convexity_changes(x, y) == expected


@pytest.mark.parametrize("seed", range(5))
def test_lines_reflections_and_further_knots_change_nothing(seed):
    draw = np.random.default_rng(seed)
    x, y = integrated(draw.normal(size=15), draw.uniform(0.1, 1, 15))
    expected = convexity_changes(x, y)
    assert convexity_changes(x, y + 3 * x - 1) == expected
    assert convexity_changes(x, -y) == expected
    assert convexity_changes(-x[::-1], y[::-1]) == expected
    finer = np.unique(np.concatenate([x, (x[1:] + x[:-1]) / 2]))
    assert convexity_changes(finer, np.interp(finer, x, y)) == expected


def test_kinks_close_together_are_one():
    # Up by 4 and down by 2 within a hundredth: one kink by 2, between pieces that are convex anyway.
    slopes, widths = [0, 1, 5, 3, 4], [0.5, 0.5, 0.01, 0.5, 0.5]
    assert convexity_changes(*integrated(slopes, widths)) == 0
    assert convexity_changes(*integrated(slopes, widths), merge=0.005) == 2


def test_a_kink_close_to_an_end_is_left_out():
    for slopes, widths in (([9, 0, 1], [0.01, 1, 1]), ([1, 0, 9], [1, 1, 0.01])):
        assert convexity_changes(*integrated(slopes, widths)) == 0
        assert convexity_changes(*integrated(slopes, widths), merge=0) == 1


def test_the_tolerance_applies_to_slopes():
    x, y = integrated([0, 1, 0, 1])
    assert convexity_changes(x, y / 20) == 0
    assert convexity_changes(x, y / 20, tolerance=0.01) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_give_nan(bad):
    x, y = integrated([1.0, -1.0, 1.0])
    y[1] = bad
    assert isnan(convexity_changes(x, y))
