"""The single neuron: reading of its norm, claims, picture, and the theory against a naive simulation."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from lnsgd.figures.cornacchia.neuron import (
    BIAS,
    DIMENSION,
    FIGURE,
    HINGE,
    HINGE_EQUILIBRIUM,
    HINGE_WIDE,
    LOGISTIC,
    LOGISTIC_EQUILIBRIUM,
    LOGISTIC_WIDE,
    RELU,
    SLOPE,
    STEP_SIZE,
    STEP_SIZES,
    WIDE,
    decay_steps,
    equilibria,
    exponents,
    linearity,
    norms_of,
    slopes,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import Curves, weights
from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.figures.handmade import handmade
from tests.tolerances import STANDARD_ERRORS

STEPS = np.arange(0, 100_001, 500)
UNIT = DIMENSION * STEP_SIZE
SEEDS = 3
NORM = ("norm", "", "net.layers.0.weight")
BIAS_NORM = ("norm", "", "net.layers.0.bias")

# In units of h a step and of d·h, what the theory predicts for each arm.
GOOD = {
    HINGE: (SLOPE, HINGE_EQUILIBRIUM),
    LOGISTIC: (0.8 * SLOPE, LOGISTIC_EQUILIBRIUM),
    HINGE_WIDE: (SLOPE, HINGE_EQUILIBRIUM),
    LOGISTIC_WIDE: (0.8 * SLOPE, LOGISTIC_EQUILIBRIUM / 2),  # √(1/(2dh))
    BIAS: (SLOPE, HINGE_EQUILIBRIUM),
    RELU: (SLOPE / 2, HINGE_EQUILIBRIUM),
}


def falling(slope: float, floor: float, step_size: float = STEP_SIZE, dimension: int = DIMENSION) -> np.ndarray:
    """Make norms of three seeds that fall along a line, slope·h a step, to floor·d·h."""
    starts = np.array([[5.4], [5.5], [5.6]])
    return np.maximum(starts + slope * step_size * STEPS, floor * dimension * step_size)


def curves(values: np.ndarray) -> Curves:
    return Curves(STEPS, values, np.full_like(values, np.nan))


def run_of(folder: Path, arm: str, slope: float, floor: float, power: float = 1.0) -> RunFolder:
    """Write the run of an arm; the equilibrium of other step sizes goes with a power of h."""
    rates = STEP_SIZES if arm in (HINGE, LOGISTIC) else (STEP_SIZE,)
    dimension = WIDE if arm in (HINGE_WIDE, LOGISTIC_WIDE) else DIMENSION
    floors = [floor * (h / STEP_SIZE) ** (power - 1) for h in rates]
    norms = np.concatenate([falling(slope, of_h, h, dimension) for h, of_h in zip(rates, floors, strict=True)])
    settings = [{"seed": seed, "lr": h} for h in rates for seed in range(SEEDS)]
    names = {NORM: norms} if arm != BIAS else {NORM: 0.6 * norms, BIAS_NORM: 0.8 * norms}
    config = {"model": {"init_args": {"net": {"init_args": {"bias": arm == BIAS}}}}}
    return handmade(folder / arm, STEPS, names, settings if len(rates) > 1 else None, config)


def runs_of(folder: Path, changed: dict[str, tuple[float, ...]] | None = None) -> Runs:
    """Write the runs of all arms: slope and equilibrium of each, and the power of h in it."""
    powers = {LOGISTIC: 0.5}
    numbers = {arm: (*of_arm, powers.get(arm, 1.0)) for arm, of_arm in GOOD.items()} | (changed or {})
    return {arm: run_of(folder, arm, *of_arm) for arm, of_arm in numbers.items()}


def test_slope_is_in_step_sizes_a_step():
    assert slopes(curves(falling(-0.3, 1.0)), 10_000) == pytest.approx([-0.3] * SEEDS)


def test_only_a_line_is_linear():
    assert linearity(curves(falling(-0.2, 1.0)), 20_000) == pytest.approx([1.0] * SEEDS)
    bent = 5.5 * np.exp(-STEPS / 3000)[None].repeat(SEEDS, 0)
    assert max(linearity(curves(bent), 20_000)) < 0.9


def test_equilibrium_is_the_mean_of_the_last_quarter():
    values = np.full((1, len(STEPS)), 7.0)
    values[:, STEPS > 75_000] = np.linspace(0, 1, 50)
    assert equilibria(curves(values)) == pytest.approx([0.5])


def test_decay_is_the_first_step_below_a_tenth():
    values = np.array([[10.0] * 4, [10.0, 5.0, 0.9, 0.8]])
    found = decay_steps(Curves(np.array([0, 5, 6, 9]), values, values))
    assert (math.isnan(found[0]), found[1]) == (True, 6)


def test_exponent_of_a_power_law():
    by_size = {size: np.array([2.0, 5.0]) * size**-1.5 for size in (0.1, 0.2, 0.7)}
    assert exponents(by_size) == pytest.approx([-1.5, -1.5])


def test_norms_are_of_a_step_size_and_include_the_bias(tmp_path):
    runs = runs_of(tmp_path)
    assert norms_of(runs[HINGE], STEP_SIZES[2]).values == pytest.approx(falling(*GOOD[HINGE], STEP_SIZES[2]))
    assert norms_of(runs[BIAS]).values == pytest.approx(falling(*GOOD[BIAS]))


def test_claims_hold_for_what_the_theory_predicts(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path))
    assert [claim.claim for claim in claims if claim.verdict != "holds"] == []
    assert [claim.n for claim in claims] == [SEEDS] * 15


BROKEN = {
    "falls-too-fast": ({HINGE: (1.2 * SLOPE, HINGE_EQUILIBRIUM, 1.0)}, ["hinge: its slope"]),
    "ends-higher": (
        {HINGE: (SLOPE, 2 * HINGE_EQUILIBRIUM, 1.0)},
        ["hinge: equilibrium", "hinge: power of d"],
    ),
    "other-power-of-h": ({HINGE: (SLOPE, HINGE_EQUILIBRIUM, 0.5)}, ["hinge: power of h in the equilibrium"]),
    "logistic-faster": ({LOGISTIC: (3 * SLOPE, LOGISTIC_EQUILIBRIUM, 0.5)}, ["logistic is slower"]),
    "logistic-linear-in-h": (
        {LOGISTIC: (0.8 * SLOPE, LOGISTIC_EQUILIBRIUM, 1.0)},
        ["logistic: power of h in the equilibrium"],
    ),
    "bias-stays": ({BIAS: (0.0, 1.0, 1.0)}, ["with a bias: slope", "with a bias: at the end"]),
    "relu-as-fast": ({RELU: (SLOPE, HINGE_EQUILIBRIUM, 1.0)}, ["ReLU neuron"]),
}


@pytest.mark.parametrize(("changed", "fail"), BROKEN.values(), ids=BROKEN)
def test_claims_fail_for_a_neuron_that_contradicts_the_theory(changed, fail, tmp_path):
    claims = [claim.claim for claim in FIGURE.claims(runs_of(tmp_path, changed)) if claim.verdict != "holds"]
    assert len(claims) == len(fail)
    assert all(claim.startswith(start) for claim, start in zip(claims, fail))


def test_draws(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    labels = [text.get_text() for text in picture.axes[0].get_legend().get_texts()]
    assert labels[:4] == [HINGE, LOGISTIC, BIAS, RELU]


def test_constants_are_those_of_the_config():
    model = yaml.safe_load(FIGURE.config_path(HINGE).read_text())["model"]["init_args"]
    assert model["net"]["init_args"]["widths"] == [DIMENSION, 1]
    assert model["optimizer"]["init_args"]["lr"] == pytest.approx(STEP_SIZE, rel=1e-6)
    assert model["net"]["init_args"]["init"][0]["init_args"]["bound"] == pytest.approx(math.sqrt(3), rel=1e-6)


def mean_change(loss: str, norm: float, draws: int = 400_000) -> tuple[float, float]:
    """Return the change of the squared norm in one step, averaged over x and y, and its standard error."""
    random = np.random.default_rng(0)
    w = np.zeros(DIMENSION)
    w[0] = norm
    x, y = random.normal(size=(draws, DIMENSION)), random.choice([-1, 1], draws)
    output = x @ w
    slope = np.where(y * output < 0, -y, 0) if loss == HINGE else -y / (1 + np.exp(y * output))
    moved = w - STEP_SIZE * slope[:, None] * x
    changes = (moved**2).sum(1) - norm**2
    return changes.mean(), changes.std() / math.sqrt(draws)


def test_far_from_zero_both_losses_fall_with_the_derived_slope():
    for loss in (HINGE, LOGISTIC):
        # The mean of ‖w‖² falls by twice the norm times the slope; what noise adds is a part in a thousand.
        change, error = mean_change(loss, 60.0)
        assert abs(change / 120 - SLOPE * STEP_SIZE) < STANDARD_ERRORS * error / 120 + 0.03 * abs(SLOPE * STEP_SIZE)


@pytest.mark.parametrize(("loss", "level"), [(HINGE, HINGE_EQUILIBRIUM), (LOGISTIC, LOGISTIC_EQUILIBRIUM)])
def test_at_the_derived_equilibrium_decay_and_noise_balance(loss, level):
    change, error = mean_change(loss, level * UNIT)
    assert abs(change) < STANDARD_ERRORS * error
    above, below = mean_change(loss, 1.5 * level * UNIT), mean_change(loss, level * UNIT / 1.5)
    assert above[0] < -STANDARD_ERRORS * above[1]
    assert below[0] > STANDARD_ERRORS * below[1]


def test_the_norm_of_a_run_is_that_of_weights_and_bias(tmp_path):
    run = RunFolder(tmp_path / "run")
    short = ["--trainer.max_steps", "500", "--data.train_size", "500", "--data.test_size", "10"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    options = [*FIGURE.arms[BIAS], *short, *quiet, "--replicas.seeds", "2", "--run_dir", str(run.path)]
    train(["fit", "--config", str(FIGURE.config_path(BIAS)), *options])
    parts = [weights(run, f"layers.0.{name}").reshape(2, -1) for name in ("weight", "bias")]
    assert norms_of(run).last == pytest.approx(np.linalg.norm(np.hstack(parts), axis=1), rel=1e-6)
