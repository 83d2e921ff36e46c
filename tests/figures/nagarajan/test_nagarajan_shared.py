"""Shared parts of the figures on Nagarajan and Kolter."""

import numpy as np
import pytest
from matplotlib.figure import Figure as Picture

from lnsgd.figures.nagarajan.shared import SETTINGS, B, distances, draw_lines, logarithmic, mean_and_spread, power_laws
from tests.figures.handmade import handmade_sweep
from tests.figures.nagarajan.nagarajan_cells import cell, grid


def test_grid_of_a_setting():
    found = SETTINGS[B].grid([40, 80], [64], p=[0.0, 0.1])
    assert found == {
        "model.net.widths": [[3072, 40, 40, 40, 40, 10], [3072, 80, 80, 80, 80, 10]],
        "data.subset": [64],
        "p": [0.0, 0.1],
    }
    assert list(SETTINGS[B].grid([40])) == ["model.net.widths"]


def test_distances_have_a_row_for_each_cell(tmp_path):
    run = handmade_sweep(
        tmp_path,
        [cell(40, 64, 0, 2.0, {"p": 0.5}), cell(80, 256, 1, 3.0, {"p": 0.0})],
    )
    cells = distances(run, {"p": "noise"})
    assert cells[["H", "m", "seed", "noise", "r", "error/test"]].to_numpy().tolist() == [
        [40, 64, 0, 0.5, 2.0, 0.25],
        [80, 256, 1, 0.0, 3.0, 0.25],
    ]


@pytest.mark.parametrize("status", ["limit", "diverged", "failed"])
def test_cells_that_reached_the_limit_have_no_numbers(tmp_path, status):
    run = handmade_sweep(tmp_path, [cell(40, 64, 0, 2.0), cell(80, 64, 0, 3.0)], {1: status})
    cells = distances(run)
    assert cells.status.tolist() == ["done", status]
    assert cells.r.tolist()[0] == 2.0
    assert cells.loc[1, ["r", "error/test"]].isna().all()
    assert cells.H.tolist() == [40, 80]


def test_exact_power_laws_are_recovered(tmp_path):
    cells = distances(handmade_sweep(tmp_path, grid(-0.2, 0.3)))
    fits = power_laws(cells, "m", "r", ["H", "seed"])
    assert fits.exponents == pytest.approx([0.3] * 9, abs=1e-12)
    expected = [(1 + seed / 10) * h**-0.2 for h in (40, 80, 160) for seed in range(3)]
    assert fits.factors == pytest.approx(expected, rel=1e-12)
    assert power_laws(cells, "H", "r", ["m", "seed"]).exponents == pytest.approx([-0.2] * 9, abs=1e-12)


def test_power_law_by_least_squares_of_the_logarithms(tmp_path):
    r = {64: 2.0, 256: 5.0, 1024: 4.0}
    cells = distances(handmade_sweep(tmp_path, [cell(40, m, 0, value) for m, value in r.items()]))
    x, y = np.log(list(r)), np.log(list(r.values()))
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    assert power_laws(cells, "m", "r", ["seed"]).exponents == pytest.approx([slope], rel=1e-12)


def test_a_group_that_lacks_a_number_has_no_exponent(tmp_path):
    cells = distances(handmade_sweep(tmp_path, grid(0.0, 0.3), {0: "limit"}))
    exponents = power_laws(cells, "m", "r", ["H", "seed"]).exponents
    assert np.isnan(exponents).tolist() == [True] + [False] * 8


def test_one_point_has_no_exponent(tmp_path):
    cells = distances(handmade_sweep(tmp_path, grid(0.0, 0.3, examples=[64])))
    with pytest.raises(ValueError, match=r"in m needs two values of it; there is one for \{'H': 40, 'seed': 0\}"):
        power_laws(cells, "m", "r", ["H", "seed"])


@pytest.mark.parametrize(
    ("values", "text"), [([1.0, 3.0], "2 ± 1.4"), ([1.5], "1.5"), ([1.0, float("nan"), 3.0], "2 ± 1.4"), ([], "–")]
)
def test_mean_and_spread(values, text):
    assert mean_and_spread(values) == text


def test_lines_show_mean_and_spread_of_each_group(tmp_path):
    cells = distances(handmade_sweep(tmp_path, grid(-0.2, 0.3), {0: "limit", 1: "limit", 2: "limit"}))
    axis = Picture().subplots()
    draw_lines(axis, cells, "H", "r", by="m", label="m = {:,}")
    logarithmic(axis.xaxis, cells.H)
    drawn = [container.lines[0] for container in axis.containers]
    assert [len(line.get_xdata()) for line in drawn] == [2, 3, 3]  # m = 64 lacks H = 40
    expected = [1.1 * h**-0.2 * 256**0.3 for h in (40, 80, 160)]
    assert drawn[1].get_ydata() == pytest.approx(expected)
    (bars,) = axis.containers[1].lines[2]
    low, high = bars.get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(0.1 * 40**-0.2 * 256**0.3)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["40", "80", "160"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["m = 64", "m = 256", "m = 1,024"]
