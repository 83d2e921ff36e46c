"""The standard basis: tables by step size, claims, picture, and the theorems on tiny runs of naive SGD."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from lnsgd.figures.cornacchia.basis import FIGURE, WIDTHS, alive, alive_on_each, outputs_by_bound, rank_correlation
from lnsgd.figures.framework.figure import Runs
from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

# Not in order, and neither are seeds: a table sorts by what it is asked for.
SIZES = [1.5, 0.0005, 0.1, 0.01, 0.001, 0.3, 1.0, 0.5]
SEEDS = 2


def run_of(folder: Path, outputs, active) -> RunFolder:
    """Write a run whose last values are functions of step size and seed."""
    settings = [{"seed": seed, "lr": size} for size in SIZES for seed in range(SEEDS)]
    curves = {
        (measure, "train", layer): np.array([[9.0, of(s["lr"], s["seed"])] for s in settings])
        for measure, layer, of in (("largest_output", "", outputs), ("active_fraction", "net.activations.0", active))
    }
    run = handmade(folder, [0, 100], curves, settings)
    run.checkpoints.mkdir()
    positive = torch.stack([torch.arange(100) < round(100 * active(s["lr"], s["seed"])) for s in settings])
    weights = torch.where(positive, 1.0, -1.0)[:, :, None].repeat(1, 1, 3)
    weights[:, 50:, 2] = -1  # the last of three inputs activates at most 50 of 100 neurons
    torch.save({"state_dict": {"stack.net.layers.0.weight": weights}, "global_step": 100}, run.last_checkpoint)
    return run


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


def test_the_input_with_the_fewest_active_neurons_counts(tmp_path):
    run = run_of(tmp_path / "run", lambda h, seed: h, lambda h, seed: 0.7 if h > 0.2 else 0.3)
    assert alive_on_each(run)[1].tolist() == [0.5 if h > 0.2 else 0.3 for h in sorted(SIZES)]


def test_claims_hold_if_the_theorems_do(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, lambda h, seed, k: 1.9 * k * h, graded))
    assert [within_bounds(claim) for claim in claims] == [True] * 15
    assert [claim.n for claim in claims] == [len(SIZES) * SEEDS, SEEDS, SEEDS, SEEDS, SEEDS] * 3


def test_one_run_at_the_bound_is_enough_to_break_it(tmp_path):
    def outputs(h: float, seed: int, k: int) -> float:
        return 2 * k * h * (1.0 if (h, seed, k) == (0.5, 1, 100) else 0.5)

    claims = [c for c in FIGURE.claims(runs_of(tmp_path, outputs, graded)) if "2kh" in c.claim]
    assert [within_bounds(claim) for claim in claims] == [True, False, True]
    assert claims[1].measured == 1 - 1 / (len(SIZES) * SEEDS)


def test_claims_fail_if_neurons_survive_at_other_step_sizes(tmp_path):
    def upside_down(h: float, seed: int) -> float:
        return 0.3 if h >= 1 else 0.2 * h

    claims = FIGURE.claims(runs_of(tmp_path, lambda h, seed, k: 3 * k * h, upside_down))
    assert [within_bounds(claim) for claim in claims] == [False] * 15


def test_one_survivor_at_a_large_step_fails_the_claim(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, lambda h, seed, k: 0, lambda h, s: 1e-4 if h == 1.5 else graded(h, s)))
    assert [within_bounds(claim) for claim in claims if "kills" in claim.claim] == [False] * 3


def test_draws(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path, lambda h, seed, k: k * h, graded))
    picture.savefig(tmp_path / "picture.png")
    labels = [text.get_text() for text in picture.axes[0].get_legend().get_texts()]
    assert labels == [*WIDTHS, "bound of Theorem 3"]


def test_step_sizes_of_the_config_span_both_thresholds():
    sizes = yaml.safe_load(FIGURE.config_path("k = 10").read_text())["replicas"]["lr"]
    assert set(sizes) >= {1.0, *(1 / k for k in WIDTHS.values())}
    assert min(sizes) < 1 / max(WIDTHS.values())
    assert max(sizes) > 1


@pytest.mark.parametrize("values", [[0.5, 0.4, 0.4, 0.1], [0.1, 0.2, 0.3, 7.0], [3.0, 1.0, 2.0, 2.0]], ids=str)
def test_rank_correlation_is_that_of_spearman(values):
    sizes = np.array([0.1, 0.2, 0.5, 1.0])
    expected = stats.spearmanr(sizes, values).statistic
    assert rank_correlation(sizes, pd.Series(values, sizes)) == pytest.approx(expected)


def naive_sgd(k: int, h: float, steps: int, dimension: int = 3) -> tuple[float, float]:
    """Return the largest |N(e_i)| and the fraction of active neurons after SGD written as plain loops."""
    random = np.random.default_rng(k)
    weights, signs = random.uniform(-1, 1, (2 * k, dimension)), np.resize([1, -1], 2 * k)
    for _ in range(steps):
        i, y = random.integers(dimension), random.choice([-1, 1])
        active = weights[:, i] > 0
        if y * (signs @ np.maximum(weights[:, i], 0)) < 0:
            weights[active, i] += h * y * signs[active]
    return np.abs(signs @ np.maximum(weights, 0)).max(), (weights > 0).mean()


@pytest.mark.parametrize("h", [0.005, 0.1, 0.5, 1.0, 1.5])
def test_naive_sgd_agrees_with_the_theorems(h):
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


def test_a_run_agrees_with_the_theorems_and_is_reproducible(tmp_path):
    first, second = trained(tmp_path / "first"), trained(tmp_path / "second")
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert (first.loc["outputs"] < 1).all(axis=None)
    assert (first.loc["alive"].loc[1.0] == 0).all()
    assert (first.loc["alive"].loc[0.1] > 0.3).all()
