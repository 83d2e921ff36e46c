"""Length of known polylines."""

from math import hypot, pi, sqrt

import numpy as np
import pytest

from lnsgd.measures.geometry import curve_length


@pytest.mark.parametrize(
    ("x", "y", "length"),
    [
        ([0, 1], [0, 0], 1.0),
        ([0, 3], [0, 4], 5.0),
        ([-1, 0, 1], [1, 0, 1], 2 * sqrt(2)),
        ([0, 1, 2, 3], [0, 1, 0, 1], 3 * sqrt(2)),
        ([0, 0.5, 1], [2, 2.5, 3], sqrt(2)),
        ([0], [5], 0.0),
    ],
)
def test_known_polylines(x, y, length):
    assert curve_length(np.array(x, float), np.array(y, float)) == pytest.approx(length, rel=1e-12)


def test_a_half_circle_from_below():
    angle = np.linspace(pi, 0, 2001)
    length = curve_length(np.cos(angle), np.sin(angle))
    assert length < pi
    assert length == pytest.approx(pi, rel=1e-6)


def test_further_knots_do_not_change_the_length():
    draw = np.random.default_rng(0)
    x, y = np.sort(draw.uniform(-1, 1, 30)), draw.normal(size=30)
    expected = sum(hypot(x[k + 1] - x[k], y[k + 1] - y[k]) for k in range(29))
    assert curve_length(x, y) == pytest.approx(expected, rel=1e-12)
    finer = np.unique(np.concatenate([x, draw.uniform(x[0], x[-1], 50)]))
    assert curve_length(finer, np.interp(finer, x, y)) == pytest.approx(expected, rel=1e-12)
