"""Lines, bands and labels."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lnsgd.figures.framework.style import BLUE, draw_band, draw_geometric_band, log_spread, plain

X = np.array([1.0, 10.0, 100.0])


def edges(band) -> tuple[list[float], list[float]]:
    """Return the lower and upper edge of a band at each x."""
    points = band.get_paths()[0].vertices
    at = [points[np.isclose(points[:, 0], x), 1] for x in X]
    return [a.min() for a in at], [a.max() for a in at]


def test_mean_and_one_standard_deviation_over_seeds():
    axis = Figure().subplots()
    values = np.array([[0.0, 2.0, 5.0], [2.0, 2.0, 7.0], [4.0, 2.0, 9.0]])
    draw_band(axis, X, values, BLUE, "p = 0", linestyle="--")
    (line,), (band,) = axis.lines, axis.collections
    assert line.get_ydata().tolist() == [2, 2, 7]
    assert (line.get_label(), line.get_linestyle(), line.get_color()) == ("p = 0", "--", BLUE)
    lower, upper = edges(band)
    assert lower == pytest.approx([0, 2, 5])
    assert upper == pytest.approx([4, 2, 9])
    assert to_hex(band.get_facecolor()[0]) == BLUE.lower()


def test_a_geometric_band_is_symmetric_on_a_logarithmic_axis():
    axis = Figure().subplots()
    draw_geometric_band(axis, X, np.array([[1.0, 10.0, 0.1], [100.0, 10.0, 0.1]]), BLUE)
    assert axis.lines[0].get_ydata() == pytest.approx([10, 10, 0.1])
    lower, upper = edges(axis.collections[0])
    factor = 10 ** np.sqrt(2)
    assert lower == pytest.approx([10 / factor, 10, 0.1])
    assert upper == pytest.approx([10 * factor, 10, 0.1])


def test_diverged_seeds_do_not_count():
    axis = Figure().subplots()
    draw_band(axis, X, np.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0], [5.0, np.nan, np.nan]]), BLUE)
    assert axis.lines[0].get_ydata().tolist() == [3, 2, 2]
    lower, upper = edges(axis.collections[0])
    root = np.sqrt(2)
    assert lower == pytest.approx([1, 2 - root, 2 - root])
    assert upper == pytest.approx([5, 2 + root, 2 + root])


def test_one_seed_has_no_band():
    axis = Figure().subplots()
    draw_band(axis, X, np.ones((1, 3)), BLUE)
    assert (len(axis.lines), len(axis.collections)) == (1, 0)


def test_plain_axes_have_no_frame_above_and_to_the_right():
    axis = Figure().subplots()
    plain(axis)
    assert [name for name, spine in axis.spines.items() if spine.get_visible()] == ["left", "bottom"]


def test_measurements_spread_over_a_logarithmic_axis():
    steps = np.arange(0, 1001)
    shown = log_spread(steps, per_decade=5)
    assert steps[shown].tolist() == [1, 2, 4, 6, 8, 13, 20, 32, 51, 80, 126, 200, 317, 502, 795, 1000]


def test_few_measurements_are_all_shown_except_the_start():
    assert log_spread(np.array([0, 1, 10, 100, 130])).tolist() == [1, 2, 3, 4]
    assert log_spread(np.array([0])).tolist() == []
