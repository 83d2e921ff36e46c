"""Trajectories and their plots."""

import numpy as np
import pandas as pd
import pytest

from lnsgd.report.plot import BOTTOM, LEFT, RIGHT, TOP, plot, plots
from lnsgd.report.trajectories import MOST_CURVES, Curve, Trajectory, logged, shown_labels, trajectories

NAN = float("nan")


def rows(*measured: tuple[int, int, str, str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(measured, columns=["unit", "step", "split", "measure", "layer", "value"])


def test_mean_and_standard_deviation_over_a_group() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(6, 3))
    table = rows(*((r, s, "val", "loss", "", values[r, t]) for t, s in enumerate((0, 5, 7)) for r in range(6)))
    (found,) = trajectories(table, table["unit"], {0: "a", 1: "a", 2: "a", 3: "b", 4: "b"})  # 5 does not count
    assert (found.name, found.layer) == ("loss/val", "")
    for curve, label, members in zip(found.curves, "ab", (slice(0, 3), slice(3, 5))):
        assert curve.label == label
        np.testing.assert_array_equal(curve.steps, [0, 5, 7])
        np.testing.assert_allclose(curve.mean, values[members].mean(0), rtol=1e-14)
        np.testing.assert_allclose(curve.std, values[members].std(0, ddof=1), rtol=1e-13)


def test_non_finite_values_do_not_count() -> None:
    table = rows((0, 1, "", "norm", "w", 2.0), (1, 1, "", "norm", "w", NAN), (0, 2, "", "norm", "w", float("inf")))
    (found,) = trajectories(table, table["unit"], {0: "", 1: ""})
    assert (found.name, found.layer) == ("norm/w", "w")
    np.testing.assert_array_equal(found.curves[0].mean, [2.0, NAN])
    np.testing.assert_array_equal(found.curves[0].std, [NAN, NAN])


def test_curves_are_in_the_order_of_groups_and_sorted_by_step() -> None:
    table = rows((1, 9, "", "x", "", 1.0), (0, 9, "", "x", "", 2.0), (0, 3, "", "x", "", 3.0))
    (found,) = trajectories(table, table["unit"], {0: "first", 1: "second"})
    assert [curve.label for curve in found.curves] == ["first", "second"]
    np.testing.assert_array_equal(found.curves[0].steps, [3, 9])


def test_logged_numbers_that_are_not_measures() -> None:
    metrics = pd.DataFrame(
        {
            **{"step": [1, 2, 3], "epoch": 0, "name": ["a", "b", "c"], "train/loss": [NAN, 2.0, 1.0]},
            **{"val/loss/mean": [1.0, NAN, 3.0], "val/loss/std": [0.1, NAN, 0.3], "loss/val/mean": 1.0},
            **{"acc/noise=0.1,lr=1/mean": 0.5, "acc/noise=0.1,lr=1/std": 0.1, "acc/noise=0.2,lr=1/mean": 0.6},
            **{"h/stderr": 1.0, "empty": NAN},
        }
    )
    found = {trajectory.name: trajectory.curves for trajectory in logged(metrics, ["loss/val"])}
    assert list(found) == ["train/loss", "val/loss", "acc"]
    np.testing.assert_array_equal(found["train/loss"][0].steps, [2, 3])
    np.testing.assert_array_equal(found["val/loss"][0].std, [0.1, 0.3])
    assert [curve.label for curve in found["acc"]] == ["noise = 0.1, lr = 1", "noise = 0.2, lr = 1"]
    assert np.isnan(found["acc"][1].std).all()


def test_some_of_too_many_groups_are_drawn() -> None:
    labels = [str(i) for i in range(30)]
    shown = shown_labels(labels)
    assert len(set(shown)) == MOST_CURVES
    assert (shown[0], shown[-1]) == ("0", "29")
    assert shown_labels(labels[:MOST_CURVES]) == labels[:MOST_CURVES]


def curve(steps: list[int], mean: list[float], std: list[float] | None = None, label: str = "") -> Curve:
    return Curve(label, np.array(steps, float), np.array(mean), np.array(std or [NAN] * len(steps)))


def points(text: str) -> np.ndarray:
    return np.array([pair.split(",") for pair in text.split()], float)


def test_steps_are_on_a_logarithmic_axis_and_values_on_a_linear_one() -> None:
    drawn = plot(Trajectory("x", "", [curve([1, 10, 100], [0.0, 1.0, 4.0])]), [""])
    assert not drawn.log
    middle, quarter = (LEFT + RIGHT) / 2, BOTTOM - (BOTTOM - TOP) / 4
    np.testing.assert_allclose(
        points(drawn.lines[0].paths[0]), [[LEFT, BOTTOM], [middle, quarter], [RIGHT, TOP]], atol=0.051
    )
    assert [(tick.at, tick.label) for tick in drawn.x_ticks] == [(LEFT, "1"), (middle, "10"), (RIGHT, "100")]
    by_label = {tick.label: tick.at for tick in drawn.y_ticks}
    assert (by_label["0"], by_label["4"]) == (BOTTOM, TOP)


def test_step_zero_is_drawn_apart() -> None:
    drawn = plot(Trajectory("x", "", [curve([0, 1, 10], [1.0, 2.0, 3.0])]), [""])
    x = points(drawn.lines[0].paths[0])[:, 0]
    assert x[0] == LEFT
    assert (drawn.x_ticks[0].at, drawn.x_ticks[0].label) == (LEFT, "0")
    assert 20 < x[1] - x[0] < x[2] - x[1]


def test_values_over_decades_are_on_a_logarithmic_axis() -> None:
    drawn = plot(Trajectory("x", "", [curve([1, 2, 4], [1.0, 0.1, 0.01], [0.5, 0.5, 0.5])]), [""])
    assert drawn.log
    y = points(drawn.lines[0].paths[0])[:, 1]
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.11)
    band = points(drawn.lines[0].bands[0])[:, 1]
    assert band.max() <= BOTTOM  # 0.1 − 0.5 is nowhere on this axis
    assert not plot(Trajectory("x", "", [curve([1, 2], [1000.0, 0.0])]), [""]).log


def test_band_is_one_standard_deviation_to_both_sides() -> None:
    drawn = plot(Trajectory("x", "", [curve([1, 10, 100], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0])]), [""])
    unit = (BOTTOM - TOP) / 4  # values from 0 to 4
    upper, lower = BOTTOM - unit * np.array([2, 3, 4]), BOTTOM - unit * np.array([0, 1, 2])
    np.testing.assert_allclose(points(drawn.lines[0].bands[0])[:, 1], [*upper, *lower[::-1]], atol=0.051)


def test_two_measurements_are_not_joined() -> None:
    drawn = plot(Trajectory("x", "", [curve([0, 10], [1.0, 3.0], [1.0, 1.0])]), [""])
    (line,) = drawn.lines
    assert (line.paths, line.bands) == ([], [])
    unit = (BOTTOM - TOP) / 4  # values from 0 to 4
    np.testing.assert_allclose(line.dots, [(LEFT, BOTTOM - unit), (RIGHT, BOTTOM - 3 * unit)], atol=0.051)
    expected = [(LEFT, BOTTOM, BOTTOM - 2 * unit), (RIGHT, BOTTOM - 2 * unit, TOP)]
    np.testing.assert_allclose(line.bars, expected, atol=0.051)


def test_headline_measures_are_drawn_first() -> None:
    names = ["train/loss", "hessian_trace/train", "loss/val", "active_fraction/train/total"]
    drawn = plots("", [Trajectory(name, "", [curve([1, 2, 3], [1.0, 2.0, 3.0])]) for name in names], [""])
    assert [one.title for one in drawn.whole] == [names[3], names[1], names[0], names[2]]


def test_curve_is_broken_at_missing_values() -> None:
    drawn = plot(Trajectory("x", "", [curve([1, 2, 3, 4, 5], [1.0, 2.0, NAN, 3.0, NAN])]), [""])
    assert [len(points(path)) for path in drawn.lines[0].paths] == [2]
    assert len(drawn.lines[0].dots) == 1  # step 4 alone


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-12, 1e9])
def test_single_point_is_a_dot(value: float) -> None:
    drawn = plot(Trajectory("x", "", [curve([7], [value])]), [""])
    ((x, y),) = drawn.lines[0].dots
    assert LEFT <= x <= RIGHT
    assert TOP < y < BOTTOM
    assert [tick.label for tick in drawn.x_ticks] == ["7"]


def test_plot_without_finite_values() -> None:
    drawn = plot(Trajectory("x", "", [curve([1, 2], [NAN, NAN])]), [""])
    assert (drawn.lines, drawn.says) == ((), "x: no finite number")


def test_long_curve_keeps_its_ends_and_stays_inside() -> None:
    steps = list(range(20_000))
    mean = np.cumsum(np.random.default_rng(1).normal(size=len(steps)))
    drawn = plot(Trajectory("x", "", [curve(steps, mean.tolist(), [1.0] * len(steps))]), [""])
    found = np.concatenate([points(drawn.lines[0].paths[0]), points(drawn.lines[0].bands[0])])
    assert 50 < len(points(drawn.lines[0].paths[0])) <= 152
    assert (found[:, 0] >= LEFT).all()
    assert (found[:, 0] <= RIGHT).all()
    assert (found[:, 1] >= TOP).all()
    assert (found[:, 1] <= BOTTOM).all()
    assert f"{number_of(drawn.says):.4g}" == f"{mean[-1]:.4g}"


def number_of(says: str) -> float:
    """Return the last value in the words of a plot."""
    return float(says.rpartition(" at step ")[0].rpartition(", ")[2].replace("−", "-").replace(",", ""))


def test_colors_follow_labels_and_layers_are_apart() -> None:
    both = [curve([1, 2], [1.0, 2.0], label=label) for label in "ab"]
    found = plots("t", [Trajectory("x", "", both), Trajectory("y/w", "w", both[1:])], ["a", "b"])
    assert (found.legend, [p.title for p in found.whole], [p.title for p in found.layers]) == (
        ["a", "b"],
        ["x"],
        ["y/w"],
    )
    assert [line.color for line in found.layers[0].lines] == [1]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.0], ["0", "0.25", "0.5", "0.75", "1"]),
        ([-3.0, 4.0], ["−2", "0", "2", "4"]),
        ([0.91, 0.97], ["0.92", "0.94", "0.96"]),
        ([1000.0, 1900.0], ["1,000", "1,200", "1,400", "1,600", "1,800"]),
        ([0.1, 0.3], ["0.1", "0.15", "0.2", "0.25", "0.3"]),
    ],
)
def test_ticks_of_values_are_round(values: list[float], labels: list[str]) -> None:
    curve = Curve("", np.array([1.0, 10.0]), np.array(values), np.full(2, np.nan))
    assert [tick.label for tick in plot(Trajectory("x", "", [curve]), [""]).y_ticks] == labels
