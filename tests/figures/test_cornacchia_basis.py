"""The standard basis: tables by step size, when claims hold, and the theorems on tiny runs of naive SGD."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from lnsgd.figures.cornacchia_basis import FIGURE, WIDTHS, alive, outputs_by_bound, rank_correlation
from lnsgd.figures.figure import Runs
from lnsgd.run_folder import RunFolder
from lnsgd.training import train
from tests.figures.handmade import handmade

# Not in order, and neither are seeds: a table sorts by what it is asked for.
SIZES = [1.5, 0.0005, 0.1, 0.01, 0.001, 0.3, 1.0, 0.5]
SEEDS = 2


def run_of(folder: Path, outputs, active) -> RunFolder:
    """Last values as functions of step size and seed; another value before that."""
    settings = [{"seed": seed, "lr": size} for size in SIZES for seed in range(SEEDS)]
    curves = {
        (measure, "train", layer): np.array([[9.0, of(s["lr"], s["seed"])] for s in settings])
        for measure, layer, of in (("largest_output", "", outputs), ("active_fraction", "net.activations.0", active))
    }
    return handmade(folder, [0, 100], curves, settings)


def runs_of(folder: Path, outputs, active) -> Runs:
    return {arm: run_of(folder / arm, lambda h, s, k=k: outputs(h, s, k), active) for arm, k in WIDTHS.items()}


def graded(h: float, seed: int) -> float:
    return 0.0 if h >= 1 else 0.5 - 0.4 * h - 0.001 * seed


def test_tables_have_a_row_per_step_size_and_a_column_per_seed(tmp_path):
    run = run_of(tmp_path / "run", lambda h, seed: 10 * h + seed, lambda h, seed: h / 10 + seed)
    active, outputs = alive(run), outputs_by_bound(run, 10)
    assert active.index.tolist() == outputs.index.tolist() == sorted(SIZES)
    assert list(active) == list(outputs) == [0, 1]
    assert active[1].tolist() == pytest.approx([h / 10 + 1 for h in sorted(SIZES)])
    assert outputs[1].tolist() == pytest.approx([(10 * h + 1) / (20 * h) for h in sorted(SIZES)])


def test_claims_hold_where_the_theorems_do(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, lambda h, seed, k: 1.9 * k * h, graded))
    assert [claim.holds for claim in claims] == [True] * 12
    assert [claim.n for claim in claims] == [len(SIZES) * SEEDS, SEEDS, SEEDS, SEEDS] * 3


def test_one_run_at_the_bound_is_enough_to_break_it(tmp_path):
    def outputs(h: float, seed: int, k: int) -> float:
        return 2 * k * h * (1.0 if (h, seed, k) == (0.5, 1, 100) else 0.5)

    claims = [c for c in FIGURE.claims(runs_of(tmp_path, outputs, graded)) if "2kh" in c.claim]
    assert [claim.holds for claim in claims] == [True, False, True]
    assert claims[1].measured == 1 - 1 / (len(SIZES) * SEEDS)


def test_claims_on_survivors_do_not_hold_for_neurons_that_survive_elsewhere(tmp_path):
    def upside_down(h: float, seed: int) -> float:
        return 0.3 if h >= 1 else 0.2 * h

    claims = FIGURE.claims(runs_of(tmp_path, lambda h, seed, k: 3 * k * h, upside_down))
    assert [claim.holds for claim in claims] == [False] * 12


def test_one_survivor_at_a_large_step_is_one_too_many(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, lambda h, seed, k: 0, lambda h, s: 1e-4 if h == 1.5 else graded(h, s)))
    assert [claim.holds for claim in claims if "kills" in claim.claim] == [False] * 3


def test_draws(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path, lambda h, seed, k: k * h, graded))
    picture.savefig(tmp_path / "picture.png")
    labels = [text.get_text() for text in picture.axes[0].get_legend().get_texts()]
    assert labels == [*WIDTHS, "bound of Theorem 3"]


def test_step_sizes_of_the_config_reach_from_below_every_1_over_k_to_above_1():
    sizes = yaml.safe_load(FIGURE.config_path("k = 10").read_text())["replicas"]["lr"]
    assert set(sizes) >= {1.0, *(1 / k for k in WIDTHS.values())}
    assert min(sizes) < 1 / max(WIDTHS.values())
    assert max(sizes) > 1


@pytest.mark.parametrize("values", [[0.5, 0.4, 0.4, 0.1], [0.1, 0.2, 0.3, 7.0], [3.0, 1.0, 2.0, 2.0]], ids=str)
def test_rank_correlation_is_spearman_s(values):
    sizes = np.array([0.1, 0.2, 0.5, 1.0])
    expected = stats.spearmanr(sizes, values).statistic
    assert rank_correlation(sizes, pd.Series(values, sizes)) == pytest.approx(expected)


def naive_sgd(k: int, h: float, steps: int, dimension: int = 3) -> tuple[float, float]:
    """Largest |N(e_i)| and the fraction alive after SGD on one coordinate and one neuron at a time."""
    random = np.random.default_rng(k)
    weights, signs = random.uniform(-1, 1, (2 * k, dimension)), np.resize([1, -1], 2 * k)
    for _ in range(steps):
        i, y = random.integers(dimension), random.choice([-1, 1])
        active = weights[:, i] > 0
        if y * (signs @ np.maximum(weights[:, i], 0)) < 0:
            weights[active, i] += h * y * signs[active]
    return np.abs(signs @ np.maximum(weights, 0)).max(), (weights > 0).mean()


@pytest.mark.parametrize("h", [0.005, 0.1, 0.5, 1.0, 1.5])
def test_naive_sgd_does_what_the_theorems_say(h):
    k = 10
    output, survivors = naive_sgd(k, h, 5000)
    assert output < 2 * k * h
    assert (survivors == 0) == (h >= 1)
    if h <= 1 / k:
        assert 0.3 < survivors < 0.7


def trained(folder: Path) -> pd.DataFrame:
    sizes = ["--replicas.lr", "[0.1,0.5,1.0]", "--replicas.seeds", "2"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    short = ["--data.dimension", "3", "--model.net.widths", "[3,20,1]", "--trainer.max_steps", "2000"]
    config = ["--config", str(FIGURE.config_path("k = 10")), "--run_dir", str(folder)]
    run = train(["fit", *config, *sizes, *quiet, *short]).run_folder
    assert run is not None
    return pd.concat([outputs_by_bound(run, 10), alive(run)], keys=["outputs", "alive"])


def test_a_run_does_so_too_and_repeats_itself(tmp_path):
    first, second = trained(tmp_path / "first"), trained(tmp_path / "second")
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert (first.loc["outputs"] < 1).all(axis=None)
    assert (first.loc["alive"].loc[1.0] == 0).all()
    assert (first.loc["alive"].loc[0.1] > 0.3).all()
