"""The figures on Nagarajan and Kolter, from handmade sweeps."""

import io
import math
from itertools import product

import pandas as pd
import pytest
import torch
from rich.console import Console

from lnsgd.figures.beyond import nagarajan_label_noise
from lnsgd.figures.beyond.nagarajan_label_noise import ENDED, FITTED, NEVER, lengths
from lnsgd.figures.framework.claims import slug
from lnsgd.figures.framework.figure import COMPUTED
from lnsgd.figures.nagarajan import initialization as nagarajan_initialization
from lnsgd.figures.nagarajan import noise as nagarajan_noise
from lnsgd.figures.nagarajan import norms as nagarajan_norms
from lnsgd.figures.nagarajan import width as nagarajan_width
from lnsgd.figures.nagarajan.norms import INITIAL, TRAINED, norms
from lnsgd.figures.nagarajan.shared import MARGIN, A, C
from lnsgd.models import MLP
from lnsgd.runs.folder import RunFolder
from tests.figures.handmade import handmade_sweep, within_bounds
from tests.figures.nagarajan.nagarajan_cells import cell, grid, law


def verdicts(figure, runs):
    return [within_bounds(claim) for claim in figure.claims(runs)]


def drawn(figure, runs, name):
    """Draw a figure and return its printed table."""
    figure.draw(runs).savefig(io.BytesIO(), format="png", dpi=30)
    console = Console(file=io.StringIO(), width=200)
    console.print(figure.table(runs))
    return console.file.getvalue()


# -- r and the generalization error, against H and m


def judged(figure, runs):
    """Return the claims by the end of their ids, after that of the arm."""
    (arm,) = runs
    return {claim.id.removeprefix(f"{slug(arm)}-"): claim for claim in figure.claims(runs)}


@pytest.mark.parametrize(
    ("of_hidden", "of_m", "failing"),
    [
        (-0.2, 0.3, set()),
        (0.1, 0.3, {"width"}),
        (0.0, -0.1, {"samples", "exponent"}),
        (0.04, 0.2, {"exponent"}),
        (0.0, 0.45, {"exponent"}),
    ],
)
def test_distances_that_are_power_laws(tmp_path, of_hidden, of_m, failing):
    runs = {MARGIN: handmade_sweep(tmp_path, grid(of_hidden, of_m))}
    claims = judged(nagarajan_width.FIGURE, runs)
    assert list(claims) == ["width", "samples", "exponent", "small-width"]
    assert claims["width"].measured == pytest.approx(of_hidden, abs=1e-9)
    assert claims["samples"].measured == pytest.approx(16.0**of_m)
    assert claims["exponent"].measured == pytest.approx(of_m, abs=1e-9)
    assert claims["small-width"].measured == pytest.approx(0, abs=1e-9)
    assert {claim.n for claim in claims.values()} == {3}  # seeds, not cells
    del claims["small-width"]  # as steep, but for rounding
    assert {name for name, claim in claims.items() if not within_bounds(claim)} == failing


def cells_with_gaps(r, error, loss):
    """Make cells with these distances and generalization errors, functions of H, m and the seed."""
    return [
        cell(
            *(hidden, m, seed, r(hidden, m, seed)),
            **{"error/train": 0.01, "error/test": 0.01 + error(hidden, m, seed)},
            **{"loss/train": 0.001, "loss/test": 0.001 + loss(hidden, m, seed)},
        )
        for hidden, m, seed in product((40, 80, 160), (64, 256, 1024), range(3))
    ]


@pytest.mark.parametrize(
    ("of_error", "of_loss", "failing"), [(-0.1, 0.0, set()), (0.06, -0.2, {"error"}), (0, 0.2, {"loss"})]
)
def test_generalization_error_against_the_width(tmp_path, of_error, of_loss, failing):
    cells = cells_with_gaps(
        lambda hidden, m, seed: law(hidden, m, 0.0, 0.3),
        lambda hidden, m, seed: law(hidden, m, of_error, -0.4, 1 + seed / 10),
        lambda hidden, m, seed: law(hidden, m, of_loss, -0.3, 0.1 + seed / 100),
    )
    runs = {A: handmade_sweep(tmp_path, cells)}
    claims = judged(nagarajan_width.FIGURE, runs)
    names = ("error", "loss")
    assert [claims[f"generalization-{name}"].measured for name in names] == pytest.approx([of_error, of_loss], abs=1e-9)
    assert {name for name in names if not within_bounds(claims[f"generalization-{name}"])} == failing
    drawn(nagarajan_width.FIGURE, runs, A)


def test_the_largest_exponent_of_a_seed_counts_and_not_the_mean(tmp_path):
    """With the largest m, r grows like H^0.1; with the others it falls."""
    cells = cells_with_gaps(
        lambda hidden, m, seed: law(hidden, m, 0.1 if m == 1024 else -0.3, 0.3),
        *(lambda hidden, m, seed: 0.1,) * 2,
    )
    claims = judged(nagarajan_width.FIGURE, {A: handmade_sweep(tmp_path, cells)})
    assert (claims["width"].measured, claims["width"].n) == (pytest.approx(0.1), 3)


def test_growth_that_is_steeper_for_narrow_networks(tmp_path):
    cells = cells_with_gaps(
        lambda hidden, m, seed: m ** {40: 0.4, 80: 0.1, 160: 0.3}[hidden],
        *(lambda hidden, m, seed: 0.1,) * 2,
    )
    claims = judged(nagarajan_width.FIGURE, {A: handmade_sweep(tmp_path, cells)})
    assert claims["small-width"].measured == pytest.approx(0.1)
    assert claims["exponent"].measured == pytest.approx(0.8 / 3)


@pytest.mark.parametrize("status", ["limit", "diverged"])
def test_with_a_cell_without_a_number_no_claim_of_its_seed_has_one(tmp_path, status):
    cells = cells_with_gaps(*(lambda hidden, m, seed: law(hidden, m, -0.2, 0.3),) * 3)
    runs = {A: handmade_sweep(tmp_path, cells, {0: status})}
    claims = judged(nagarajan_width.FIGURE, runs)
    assert all(math.isnan(claim.measured) for claim in claims.values())
    rows = drawn(nagarajan_width.FIGURE, runs, A).splitlines()
    row = next(line for line in rows if " 64 " in line and " 40 " in line)
    assert row.split("│")[-2].strip() == "1"


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
    assert [within_bounds(claim) for claim in claims[:2]] == holds[:2]
    assert within_bounds(steeper) == holds[2] or abs(steeper.measured) < 1e-12  # as steep, but for rounding
    drawn(nagarajan_noise.FIGURE, runs, nagarajan_noise.SIGNS)


@pytest.mark.parametrize(("of_hidden", "of_gap", "holds"), [(0.0, 0.0, [True, True]), (0.1, 0.2, [False, False])])
def test_noise_against_the_width(tmp_path, of_hidden, of_gap, holds):
    cells = [
        cell(
            *(hidden, m, seed, law(hidden, m, of_hidden if part else 1.0, 0.3, 1 + seed / 10)),
            {"data.corrupted_fraction": part},
            **{"loss/train": 0.1, "loss/test": 0.1 + law(hidden, m, of_gap if not part else 1.0, -0.3)},
        )
        for part, hidden, m, seed in product((0.0, 1.0), (40, 160), (64, 256), range(3))
    ]
    runs = {nagarajan_noise.SIGNS: handmade_sweep(tmp_path, cells)}
    claims = judged(nagarajan_noise.FIGURE, runs)
    width, generalization = claims["width"], claims["generalization"]
    assert [within_bounds(width), within_bounds(generalization)] == holds
    assert (width.measured, width.n) == (pytest.approx(of_hidden, abs=1e-9), 3)
    assert (generalization.measured, generalization.n) == (pytest.approx(of_gap, abs=1e-9), 3)
    drawn(nagarajan_noise.FIGURE, runs, nagarajan_noise.SIGNS)


# -- initialization


def test_ratios_along_the_gradient_are_those_of_networks_at_the_distances():
    """A linear network f = w·x: the gradient is x, so that f(r) = f(0) + r‖x‖ exactly."""
    torch.manual_seed(0)
    net = MLP([3, 10], bias=False)
    with torch.no_grad():
        net.layers[0].weight.zero_()
    x = torch.tensor([[1.0, -2.0, 2.0]])
    rows = list(nagarajan_initialization._moved(net, x))
    assert [row["r"] for row in rows] == [1.0, 2.0, 4.0, 8.0]
    within = [(row["r"] + 1) ** 5 for row in rows]
    assert [row["output"] * w for row, w in zip(rows, within)] == pytest.approx([3 / 4, 6 / 4, 12 / 4, 24 / 4])
    assert [row["gradient"] * w for row, w in zip(rows, within)] == pytest.approx([3 / 4 / 5] * 4)
    assert [row["spectral"] * w for row, w in zip(rows, within)] == pytest.approx([1, 2, 4, 8])
    assert {row["c"] for row in rows} == {1.0}


def test_untrained_networks_have_the_generalization_error_of_independent_draws():
    """The root mean square over training sets is the standard deviation of the loss over √m, within 4 s.e."""
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.rand(500, 20, generator=generator), torch.randint(10, (500,), generator=generator)
    net = MLP([20, 30, 10])
    errors = (net(inputs).argmax(1) != labels).double()
    for row in nagarajan_initialization._untrained(net, inputs, labels, 0):
        expected = float(errors.std(correction=0)) / row["m"] ** 0.5
        assert row["gap_error"] == pytest.approx(expected, rel=4 / (2 * nagarajan_initialization.TRAINING_SETS) ** 0.5)


@pytest.mark.parametrize(
    ("factor", "of_hidden", "failing"),
    [(1.0, 0.0, set()), (40.0, 0.0, {"{}-bound"}), (0.1, 0.2, {"{}-bound-width"})],
)
def test_initialization_claims(tmp_path, factor, of_hidden, failing):
    """The bound is 2⁵ = 32 at all H and r."""
    columns = ("output", "gradient", "spectral")
    moved = [
        {"seed": s, "kind": "moved", "H": h, "r": r, "c": 2.0, **dict.fromkeys(columns, factor * h**of_hidden)}
        for s, h, r in product(range(2), (40, 80), (1.0, 2.0, 4.0, 8.0))
    ]
    untrained = [
        {"seed": s, "kind": "untrained", "H": h, "m": m, "gap_error": m**-0.5, "gap_loss": m**-0.5, "loss": 0.3}
        for s, h, m in product(range(2), (40, 80), nagarajan_initialization.EXAMPLES)
    ]
    run = RunFolder(tmp_path)
    pd.DataFrame([*untrained, *moved]).to_parquet(run.measures)
    runs = {COMPUTED: run}
    claims = nagarajan_initialization.FIGURE.claims(runs)
    expected = {name.format(column) for name in failing for column in columns}
    assert {claim.id for claim in claims if not within_bounds(claim)} == expected
    assert {claim.n for claim in claims} == {2}
    nagarajan_initialization.FIGURE.draw(runs).savefig(io.BytesIO(), format="png", dpi=30)


# -- norms

NORMS = (("norm", "net.layers.1.weight"), ("spectral_norm", "net.layers.1.weight"))
PRODUCTS = ("norm_product", "spectral_norm_product")


def normed(tmp_path, frobenius, spectral):
    """Make cells whose norms are these powers of H, and initially half as large."""
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
    """Make cells that fit from step 10 on, with these ratios of distances at p = 0.2. The last cell never fits."""
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


def test_lengths_at_the_first_fit_and_at_the_end(tmp_path):
    cells = lengths(travelled(tmp_path, 0.5, 2.0))
    assert cells[FITTED].isna().tolist() == cells[NEVER].tolist() == [False] * 7 + [True]
    assert cells[FITTED][2] == pytest.approx(cells[FITTED][0] * 0.5)
    assert cells[ENDED][2] == pytest.approx(cells[ENDED][0] * 2)


@pytest.mark.parametrize(("arm", "holds"), [(NOISE, [False, True]), (SMOOTHING, [True, False])])
def test_label_noise_claims(tmp_path, arm, holds):
    runs = {arm: travelled(tmp_path, 0.5, 2.0)}
    at_fit, at_end = nagarajan_label_noise.FIGURE.claims(runs)
    assert [within_bounds(at_fit), within_bounds(at_end)] == holds
    assert (at_fit.measured, at_fit.n) == (pytest.approx(0.5), 2)
    assert (at_end.measured, at_end.n) == (pytest.approx(2.0), 2)
    drawn(nagarajan_label_noise.FIGURE, runs, arm)


@pytest.mark.parametrize("diverged", [0, 2, 5, 7], ids=["without-noise", "noisy", "without-noise-of-last", "last"])
def test_with_a_network_that_diverged_no_claim_holds(tmp_path, diverged):
    """This does not depend on whether it fitted before, or is compared with the network that never fits."""
    for number, (at_fit, at_end) in enumerate([(2.0, 2.0), (0.5, 0.5)]):
        arm = (NOISE, SMOOTHING)[number]
        runs = {arm: travelled(tmp_path / str(number), at_fit, at_end)}
        assert verdicts(nagarajan_label_noise.FIGURE, runs) == [True, True]
        runs = {arm: travelled(tmp_path / f"{number}-diverged", at_fit, at_end, {diverged: "diverged"})}
        claims = nagarajan_label_noise.FIGURE.claims(runs)
        assert [within_bounds(claim) for claim in claims] == [False, False]
        assert [math.isnan(claim.measured) for claim in claims] == [True, True]
        drawn(nagarajan_label_noise.FIGURE, runs, arm)
