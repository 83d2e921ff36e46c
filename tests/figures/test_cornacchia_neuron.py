"""The single neuron: what is read from its norm, when claims hold, and the theory against a naive simulation."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from lnsgd.figures.cornacchia_neuron import (
    DIMENSION,
    FIGURE,
    HINGE,
    HINGE_EQUILIBRIUM,
    LOGISTIC,
    LOGISTIC_EQUILIBRIUM,
    SLOPE,
    STEP_SIZE,
    equilibria,
    linearity,
    slopes,
    withered_at,
)
from lnsgd.figures.figure import Runs
from lnsgd.figures.results import Curves
from lnsgd.training import train
from tests.figures.handmade import handmade
from tests.tolerances import STANDARD_ERRORS

STEPS = np.arange(0, 100_001, 500)
UNIT = DIMENSION * STEP_SIZE
SEEDS = 3


def falling(slope: float, floor: float) -> np.ndarray:
    """Norms of three seeds that fall along a line, slope·h a step, to floor·d·h."""
    starts = np.array([[5.4], [5.5], [5.6]])
    return np.maximum(starts + slope * STEP_SIZE * STEPS, floor * UNIT)


def curves(values: np.ndarray) -> Curves:
    return Curves(STEPS, values, np.full_like(values, np.nan))


def runs_of(folder: Path, hinge: np.ndarray, logistic: np.ndarray) -> Runs:
    name = ("norm", "", "net.layers.0.weight")
    return {
        HINGE: handmade(folder / "hinge", STEPS, {name: hinge}),
        LOGISTIC: handmade(folder / "logistic", STEPS, {name: logistic}),
    }


def test_slope_is_in_step_sizes_a_step():
    assert slopes(curves(falling(-0.3, 1.0))) == pytest.approx([-0.3] * SEEDS)


def test_only_a_line_is_linear():
    assert linearity(curves(falling(-0.2, 1.0))) == pytest.approx([1.0] * SEEDS)
    bent = 5.5 * np.exp(-STEPS / 3000)[None].repeat(SEEDS, 0)
    assert max(linearity(curves(bent))) < 0.9


def test_equilibrium_is_the_mean_of_the_last_quarter_in_units_of_dh():
    values = np.full((1, len(STEPS)), 7.0)
    values[:, STEPS > 75_000] = np.linspace(0, 1, 50) * UNIT
    assert equilibria(curves(values)) == pytest.approx([0.5])


def test_withered_is_the_first_step_below_a_tenth():
    values = np.array([[10.0] * 4, [10.0, 5.0, 0.9, 0.8]])
    found = withered_at(Curves(np.array([0, 5, 6, 9]), values, values))
    assert (math.isnan(found[0]), found[1]) == (True, 6)


def test_claims_hold_for_what_the_theory_predicts(tmp_path):
    runs = runs_of(tmp_path, falling(SLOPE, HINGE_EQUILIBRIUM), falling(0.8 * SLOPE, LOGISTIC_EQUILIBRIUM))
    claims = FIGURE.claims(runs)
    assert [(claim.holds, claim.n) for claim in claims] == [(True, SEEDS)] * 6


def test_claims_do_not_hold_for_a_neuron_that_does_otherwise(tmp_path):
    # Exponential decay that stays far above d·h, and a logistic loss that is faster and ends lower.
    slow = np.maximum(5.5 * np.exp(-STEPS / 3000), 5 * UNIT)[None].repeat(SEEDS, 0)
    claims = FIGURE.claims(runs_of(tmp_path, slow, falling(-4, 0.1)))
    assert [claim.holds for claim in claims] == [False] * 6


def test_a_neuron_that_never_withers_proves_nothing(tmp_path):
    stays = np.full((SEEDS, len(STEPS)), 5.5)
    claims = FIGURE.claims(runs_of(tmp_path, falling(SLOPE, HINGE_EQUILIBRIUM), stays))
    (slower,) = [claim for claim in claims if claim.claim.startswith("logistic is slower")]
    assert (slower.holds, math.isnan(slower.measured)) == (False, True)


def test_draws(tmp_path):
    runs = runs_of(tmp_path, falling(SLOPE, HINGE_EQUILIBRIUM), falling(0.8 * SLOPE, LOGISTIC_EQUILIBRIUM))
    picture = FIGURE.draw(runs)
    picture.savefig(tmp_path / "picture.png")
    assert len(picture.axes) == 2
    labels = [text.get_text() for text in picture.axes[0].get_legend().get_texts()]
    assert labels[:2] == ["hinge loss", "logistic loss"]


def test_constants_are_those_of_the_config():
    model = yaml.safe_load(FIGURE.config_path(HINGE).read_text())["model"]["init_args"]
    assert model["net"]["init_args"]["widths"] == [DIMENSION, 1, 1]
    assert model["optimizer"]["init_args"]["lr"] == pytest.approx(STEP_SIZE, rel=1e-6)
    assert model["net"]["init_args"]["init"][0]["init_args"]["bound"] == pytest.approx(math.sqrt(3), rel=1e-6)


def mean_change(loss: str, norm: float, draws: int = 400_000) -> tuple[float, float]:
    """Change of the squared norm in one step, in the mean over x and y, and its standard error."""
    random = np.random.default_rng(0)
    w = np.zeros(DIMENSION)
    w[0] = norm
    x, y = random.normal(size=(draws, DIMENSION)), random.choice([-1, 1], draws)
    output = np.maximum(x @ w, 0)
    slope = np.where(y * output < 0, -y, 0) if loss == HINGE else -y / (1 + np.exp(y * output))
    moved = w - STEP_SIZE * (slope * (output > 0))[:, None] * x
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


def test_same_seeds_same_numbers(tmp_path):
    found = []
    for number in range(2):
        runs = {}
        for arm, options in FIGURE.arms.items():
            run = tmp_path / f"{number}-{arm}"
            short = ["--trainer.max_steps", "2000", "--data.train_size", "500", "--data.test_size", "10"]
            quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
            seeds = ["--replicas.seeds", "2", "--run_dir", str(run)]
            cli = train(["fit", "--config", str(FIGURE.config_path(arm)), *options, *short, *quiet, *seeds])
            runs[arm] = cli.run_folder
        found.append(FIGURE.claims(runs))
    assert str(found[0]) == str(found[1])  # NaN is not itself
    assert found[0][1].n == 2
