"""One labelled point: closed forms, counting of values, claims, picture, and the theorem on a short run."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special

from lnsgd.figures.blanc.single_point import (
    FIGURE,
    FOUR,
    NETS,
    SIX,
    TANH,
    Net,
    distinct_values,
    minima,
    nonzero_values,
    units_of,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

SEEDS = 2
STEPS = [0, 10, 100]

# Which claim of a network is which.
FEW, LEAST, CONTROL = range(3)
SIGNS, EQUAL, TWO = 9, 10, 11


def regularizer(net: Net, activations: np.ndarray, weights: np.ndarray) -> float:
    slopes = 1 - activations**2 if net.odd else activations * (1 - activations)
    return float((activations**2 + weights**2 * slopes**2).sum())


# --- closed forms ---


@pytest.mark.parametrize("net", NETS, ids=[net.name for net in NETS])
def test_no_activation_is_better_for_a_share(net):
    grid = np.linspace(1e-6, 1 - 1e-6, 200_001)
    slopes = 1 - grid**2 if net.odd else grid * (1 - grid)
    for share in (0.05, 1 / 3, 1.0, 1.7):
        costs = grid**2 + (share / grid) ** 2 * slopes**2
        assert net.cost(np.float64(share)) == pytest.approx(costs.min(), rel=1e-8)
        assert net.activation(np.float64(share)) == pytest.approx(grid[costs.argmin()], abs=1e-5)


@pytest.mark.parametrize("net", NETS, ids=[net.name for net in NETS])
def test_least_regularizer_against_descent_on_all_weights(net):
    """The descent starts from many points, over pre-activations and output weights that fit the label."""

    def cost(numbers: np.ndarray) -> float:
        z, weights = np.split(numbers, 2)
        activations = np.tanh(z) if net.odd else special.expit(z)
        return regularizer(net, activations, weights)

    def error(numbers: np.ndarray) -> float:
        z, weights = np.split(numbers, 2)
        return float(weights @ (np.tanh(z) if net.odd else special.expit(z)) - net.label)

    few = Net(net.name, 4, net.label, net.cost, net.activation, net.odd) if net is TANH else net
    draw = np.random.default_rng(0)
    found = [
        optimize.minimize(
            cost,
            draw.normal(size=2 * few.units),
            constraints={"type": "eq", "fun": error},
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-12},
        ).fun
        for _ in range(10)
    ]
    assert min(found) == pytest.approx(minima(few)[0].regularizer, rel=1e-5)


def slope(p: float) -> float:
    """Return the slope of the logistic cost."""
    return 2 * p / (1 + p**2) ** 2


def test_closed_forms_of_the_paper_s_cases():
    (tanh,) = minima(TANH)
    assert tanh.shares == (1.0, 0.0)
    assert tanh.regularizer == pytest.approx(2 * (math.sqrt(2) - 1), abs=1e-9)
    (six,) = minima(SIX)
    assert six.shares == pytest.approx((1 / 3, 1 / 3))
    assert six.regularizer == pytest.approx(0.6, abs=1e-9)


def test_four_logistic_units_have_two_minima():
    two_values, equal = minima(FOUR)
    assert equal.shares == pytest.approx((0.5, 0.5))
    assert equal.regularizer == pytest.approx(0.8, abs=1e-9)
    large, small = two_values.shares
    assert large + 3 * small == pytest.approx(2)
    assert large > 3 * small
    assert slope(large) == pytest.approx(slope(small), abs=1e-5)
    assert 0.77 < two_values.regularizer < 0.78


# --- what is read ---


def run_of(folder: Path, net: Net, pairs: np.ndarray, least: float = 1.0) -> RunFolder:
    """Write a run whose seeds all end with these (activation, output weight), with other values before."""
    curves = {("implicit_regularizer", "train", ""): np.full((SEEDS, 3), [5.0, 5.0, least])}
    for j, (activation, weight) in enumerate(pairs):
        layer = f"net.activations.0.{j}"
        curves["activation", "train", layer] = np.tile([0.1 * j, 0.1 * j, activation], (SEEDS, 1))
        curves["output_weight", "", layer] = np.tile([1.0, 2.0 + j, weight], (SEEDS, 1))
    return handmade(folder, STEPS, curves)


def best_pairs(net: Net, which: int = 0) -> np.ndarray:
    one, other = minima(net)[which].shares
    shares = np.maximum([one, *[other] * (net.units - 1)], 1e-9)
    return np.stack([net.activation(shares), shares / net.activation(shares)], 1)


def spread_pairs(net: Net) -> np.ndarray:
    return np.stack([np.linspace(0.1, 0.9, net.units), np.linspace(-1, 1, net.units)], 1)


def runs_of(folder: Path, noisy=best_pairs, clean=spread_pairs, factor: float = 1.0) -> Runs:
    runs = {}
    for net in NETS:
        runs[net.noisy] = run_of(folder / net.noisy, net, noisy(net), factor * minima(net)[0].regularizer)
        runs[net.clean] = run_of(folder / net.clean, net, clean(net))
    return runs


def test_units_by_seed_unit_and_step(tmp_path):
    units = units_of(run_of(tmp_path / "run", FOUR, spread_pairs(FOUR)), FOUR)
    assert units.steps.tolist() == STEPS
    assert units.activations.shape == units.output_weights.shape == (SEEDS, 4, 3)
    assert units.output_weights[1, :, 1].tolist() == [2, 3, 4, 5]
    np.testing.assert_allclose(units.shares[0, :, -1], spread_pairs(FOUR).prod(1))


def test_a_tanh_unit_counts_up_to_its_sign(tmp_path):
    pairs = np.zeros((20, 2))
    pairs[3], pairs[7] = (0.84, 1.19), (-0.84, -1.19)
    assert distinct_values(run_of(tmp_path / "same", TANH, pairs), TANH) == [2, 2]
    assert nonzero_values(run_of(tmp_path / "nonzero", TANH, pairs), TANH) == [1, 1]
    assert nonzero_values(run_of(tmp_path / "zero", TANH, 0 * pairs), TANH) == [0, 0]
    pairs[7] = (-0.84, 1.19)
    assert nonzero_values(run_of(tmp_path / "signs", TANH, pairs), TANH) == [2, 2]
    assert distinct_values(run_of(tmp_path / "other", TANH, pairs), TANH) == [3, 3]


def test_a_logistic_unit_does_not(tmp_path):
    pairs = np.array([(0.3, 1.0), (0.3, 1.0), (0.3, -1.0), (0.3, 1.01)])
    assert distinct_values(run_of(tmp_path / "run", FOUR, pairs), FOUR) == [2, 2]


# --- what is judged ---


def test_claims_hold_if_the_theorem_does(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path))
    assert [within_bounds(claim) for claim in claims] == [True] * 12
    assert {claim.n for claim in claims} == {SEEDS}


def test_claims_fail_if_units_differ_with_noise_and_agree_without(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, spread_pairs, best_pairs, factor=1.02))
    assert [within_bounds(claim) for claim in claims] == [False] * 12


def test_a_regularizer_below_the_minimum_fails_the_claim(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, factor=0.98))
    failed = {number for number, claim in enumerate(claims) if not within_bounds(claim)}
    assert failed == {LEAST, 3 + LEAST, 6 + LEAST}


def test_equal_units_in_all_runs_fail_the_claim_on_two_values(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, lambda net: best_pairs(net, -1), factor=1.0))
    assert [number for number, claim in enumerate(claims) if not within_bounds(claim)] == [TWO]
    at_equal = runs_of(tmp_path / "equal", factor=0.8 / minima(FOUR)[0].regularizer)
    assert FIGURE.claims(at_equal)[6 + LEAST].measured == pytest.approx(1)


def test_three_values_are_one_too_many(tmp_path):
    def three(net: Net) -> np.ndarray:
        pairs = best_pairs(net)
        pairs[-1] += (0, 0.05)
        return pairs

    claims = FIGURE.claims(runs_of(tmp_path, three))
    failed = {number for number, claim in enumerate(claims) if not within_bounds(claim)}
    assert failed == {FEW, 6 + FEW, SIGNS, EQUAL, TWO}  # six equal units become two values


# --- what is drawn ---


def test_draws(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    assert len(picture.axes) == 9
    assert [axis.get_title() for axis in picture.axes[:3]] == [f"{net.name}, y = {net.label:g}" for net in NETS]
    labels = [text.get_text() for axis in picture.axes if axis.get_legend() for text in axis.get_legend().get_texts()]
    assert {"label noise", "no noise", "least, closed form"} <= set(labels)


# --- what is trained ---


def test_arms_are_what_the_networks_say():
    for net in NETS:
        for arm in (net.noisy, net.clean):
            options = FIGURE.options("paper", arm)
            if net is not TANH:
                assert options[options.index("--model.net.widths") + 1] == f"[3,{net.units},1]"
                assert options[options.index("--data.label") + 1] == f"{net.label:g}"


def trained(folder: Path) -> RunFolder:
    """Train six logistic units with strong noise, which makes them nearly equal within a short run."""
    options = [*FIGURE.options("ci", SIX.noisy), "--replicas.seeds", "2", "--model.noise_steps", "150000"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    short = ["--trainer.max_steps", "152000", "--run_dir", str(folder)]
    run = train(["fit", "--config", str(FIGURE.config_path(SIX.noisy)), *options, *quiet, *short]).run_folder
    assert run is not None
    return run


def test_a_short_run_agrees_with_the_theorem_and_is_reproducible(tmp_path):
    first, second = trained(tmp_path / "first"), trained(tmp_path / "second")
    tables = [pd.read_parquet(run.measures) for run in (first, second)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    units = units_of(first, SIX)
    before, after = units.shares[:, :, 0], units.shares[:, :, -1]
    np.testing.assert_allclose(after.sum(1), 2, atol=1e-6)
    np.testing.assert_allclose(after, 1 / 3, atol=0.05)
    assert (before.std(1) > 10 * after.std(1)).all()
