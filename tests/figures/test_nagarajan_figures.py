"""The figures of Nagarajan and Kolter, on hand-made sweeps."""

import io
import math
from itertools import product

import pytest
from rich.console import Console
from scipy import stats

from lnsgd.figures import nagarajan_label_noise, nagarajan_noise, nagarajan_norms, nagarajan_samples, nagarajan_width
from lnsgd.figures.nagarajan import MARGIN, A, C
from lnsgd.figures.nagarajan_label_noise import ENDED, FITTED, NEVER, lengths
from lnsgd.figures.nagarajan_norms import INITIAL, TRAINED, norms
from lnsgd.figures.nagarajan_samples import interval
from tests.figures.handmade import handmade_sweep
from tests.figures.nagarajan_cells import cell, grid, law


def verdicts(figure, runs):
    return [claim.holds for claim in figure.claims(runs)]


def drawn(figure, runs, name):
    """Draws and prints it, which must not fail; gives what is printed."""
    figure.draw(runs).savefig(io.BytesIO(), format="png", dpi=30)
    console = Console(file=io.StringIO(), width=200)
    console.print(figure.table(runs))
    return console.file.getvalue()


# -- r against H


@pytest.mark.parametrize(
    ("of_hidden", "of_m", "holds"),
    [(-0.2, 0.3, [True, True]), (0.1, 0.3, [False, True]), (0.0, -0.1, [True, False]), (0.04, 0.0, [True, True])],
)
def test_width(tmp_path, of_hidden, of_m, holds):
    runs = {A: handmade_sweep(tmp_path, grid(of_hidden, of_m))}
    assert verdicts(nagarajan_width.FIGURE, runs) == holds
    first, second = nagarajan_width.FIGURE.claims(runs)
    assert (first.measured, first.n) == (pytest.approx(of_hidden, abs=1e-9), 9)
    assert (second.measured, second.n) == (pytest.approx(16.0**of_m), 3)


def test_width_where_a_cell_reached_the_limit(tmp_path):
    runs = {A: handmade_sweep(tmp_path, grid(-0.2, 0.3), {0: "limit"})}
    assert verdicts(nagarajan_width.FIGURE, runs)[0] is False
    row = next(
        line for line in drawn(nagarajan_width.FIGURE, runs, A).splitlines() if " 64 " in line and " 40 " in line
    )
    assert row.split("│")[-2].strip() == "1"


# -- r against m


@pytest.mark.parametrize(("of_m", "holds"), [(0.3, True), (0.2, False), (0.45, False)])
def test_samples(tmp_path, of_m, holds):
    runs = {MARGIN: handmade_sweep(tmp_path, grid(0.0, of_m))}
    assert verdicts(nagarajan_samples.FIGURE, runs) == [holds]
    assert f"{of_m:.3f}" in drawn(nagarajan_samples.FIGURE, runs, MARGIN)


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = stats.norm(3.0, 2.0).rvs((2000, 5), random_state=0)
    covered = sum(low <= 3.0 <= high for low, high in (interval(row.tolist()) for row in draws))
    assert covered / 2000 == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 2000) ** 0.5)


def test_one_value_has_no_interval():
    assert all(bound != bound for bound in interval([1.0]))


# -- corrupted labels


def noisy(r):
    return [
        cell(80, m, seed, r(m, part, seed), {"data.corrupted_fraction": part})
        for part, m, seed in product((0.0, 0.5, 1.0), (64, 256), range(3))
    ]


@pytest.mark.parametrize(
    ("r", "holds"),
    [
        (lambda m, part, seed: m ** (0.3 + part / 10), [True, True, True]),
        (lambda m, part, seed: m**0.3 * (1 + part), [True, True, True]),  # as steep: not less steep
        (lambda m, part, seed: m ** (0.3 - part / 100) * (1 + part), [True, True, False]),
        (lambda m, part, seed: m**0.3 * (1 - part / 2), [False, False, True]),
        (lambda m, part, seed: m**0.3 * (1 + (part == 0.5) + part / 2), [True, False, True]),
    ],
)
def test_noise(tmp_path, r, holds):
    runs = {nagarajan_noise.SIGNS: handmade_sweep(tmp_path, noisy(r))}
    claims = nagarajan_noise.FIGURE.claims(runs)
    steeper = claims[2]
    assert [claim.holds for claim in claims[:2]] == holds[:2]
    assert steeper.holds == holds[2] or abs(steeper.measured) < 1e-12  # as steep, but for rounding
    drawn(nagarajan_noise.FIGURE, runs, nagarajan_noise.SIGNS)


# -- norms

NORMS = (("norm", "net.layers.1.weight"), ("spectral_norm", "net.layers.1.weight"))
PRODUCTS = ("norm_product", "spectral_norm_product")


def normed(tmp_path, frobenius, spectral):
    """Cells whose norms are these powers of H; initially half as large."""
    cells, first = [], []
    for number, (hidden, seed) in enumerate(product((40, 80, 160), range(2))):
        powers = (frobenius, spectral, 4 * frobenius, 5 * spectral)
        values = dict(zip(("/".join(name) for name in NORMS), (hidden**power for power in powers)))
        values |= dict(zip(PRODUCTS, (hidden**power for power in powers[2:])))
        cells.append(cell(hidden, 256, seed, 3.0, **values))
        for name, value in values.items():
            measure, _, layer = name.partition("/")
            first.append((number, 0, "", measure, layer, value / 2))
            first.append((number, 100, "", measure, layer, value))
    return handmade_sweep(tmp_path, cells, trajectories=first)


def test_norms_before_and_after(tmp_path):
    cells = norms(normed(tmp_path, 0.5, 0.0))
    assert len(cells) == 12
    before, after = (cells[cells.when == when].reset_index() for when in (INITIAL, TRAINED))
    assert (2 * before["norm/net.layers.1.weight"]).tolist() == after["norm/net.layers.1.weight"].tolist()
    assert (before.r == 0).all() and (after.r == 3).all()


@pytest.mark.parametrize(
    ("frobenius", "spectral", "failing"),
    [(0.5, 0.0, set()), (0.4, 0.0, {0, 3}), (0.3, 0.0, {0, 2, 3, 5}), (0.5, 0.15, {1, 4, 6}), (0.5, 0.05, {6})],
)
def test_norm_claims(tmp_path, frobenius, spectral, failing):
    runs = {C: normed(tmp_path, frobenius, spectral)}
    holds = verdicts(nagarajan_norms.FIGURE, runs)
    assert {number for number, held in enumerate(holds) if not held} == failing
    drawn(nagarajan_norms.FIGURE, runs, C)


# -- fresh label noise

NOISE, SMOOTHING = "squared loss, label noise", "squared loss, smoothing"


def travelled(tmp_path, at_fit, at_end, statuses=None):
    """Without errors from step 10 on; at p = 0.2 these times as far as without noise. The last cell never fits."""
    cells, rows = [], []
    for number, (m, p, seed) in enumerate(product((64, 256), (0.0, 0.2), range(2))):
        way = law(40, m, 0.0, 0.3, 1 + seed / 10)
        fit, end = (way * (ratio if p else 1) for ratio in (at_fit, at_end))
        cells.append(cell(40, m, seed, end, {"model.label_noise.p": p}))
        last = number == 7
        for step, error, r in ((0, 0.9, 0.0), (10, 0.1 if last else 0.0, fit), (100, 0.1 if last else 0.0, end)):
            rows.append((number, step, "train", "error", "", error))
            rows.append((number, step, "test", "error", "", 0.25))
            rows.append((number, step, "", "distance_from_init", "", r))
    return handmade_sweep(tmp_path, cells, statuses, trajectories=rows)


def test_lengths_where_it_first_fits_and_at_the_end(tmp_path):
    cells = lengths(travelled(tmp_path, 0.5, 2.0))
    assert cells[FITTED].isna().tolist() == cells[NEVER].tolist() == [False] * 7 + [True]
    assert cells[FITTED][2] == pytest.approx(cells[FITTED][0] * 0.5)
    assert cells[ENDED][2] == pytest.approx(cells[ENDED][0] * 2)


@pytest.mark.parametrize(("arm", "holds"), [(NOISE, [False, True]), (SMOOTHING, [True, False])])
def test_label_noise_claims(tmp_path, arm, holds):
    runs = {arm: travelled(tmp_path, 0.5, 2.0)}
    at_fit, at_end = nagarajan_label_noise.FIGURE.claims(runs)
    assert [at_fit.holds, at_end.holds] == holds
    assert (at_fit.measured, at_fit.n) == (pytest.approx(0.5), 3)
    assert (at_end.measured, at_end.n) == (pytest.approx(2.0), 4)
    drawn(nagarajan_label_noise.FIGURE, runs, arm)


@pytest.mark.parametrize("diverged", [0, 2, 5, 7], ids=["without-noise", "noisy", "without-noise-of-last", "last"])
def test_with_a_network_that_diverged_no_claim_holds(tmp_path, diverged):
    """Whether or not it fitted before, and whether or not it is compared with the one that never fits."""
    for number, (at_fit, at_end) in enumerate([(2.0, 2.0), (0.5, 0.5)]):
        arm = (NOISE, SMOOTHING)[number]
        runs = {arm: travelled(tmp_path / str(number), at_fit, at_end)}
        assert verdicts(nagarajan_label_noise.FIGURE, runs) == [True, True]
        runs = {arm: travelled(tmp_path / f"{number}-diverged", at_fit, at_end, {diverged: "diverged"})}
        claims = nagarajan_label_noise.FIGURE.claims(runs)
        assert [claim.holds for claim in claims] == [False, False]
        assert [math.isnan(claim.measured) for claim in claims] == [True, True]
        drawn(nagarajan_label_noise.FIGURE, runs, arm)
