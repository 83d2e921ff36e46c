"""The network on pure noise: reading of norms, biases and active neurons, claims and picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lnsgd.figures.cornacchia.pure_noise import CONTROLS, FIGURE, largest_rise, remaining, stable_part, steps_until
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import Curves
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

STEPS = [0, 10, 500, 1000]
ARMS = list(FIGURE.arms)
BIAS = "stack.net.layers.0.bias"


def curves(*rows: list[float]) -> Curves:
    return Curves(np.array(STEPS), np.array(rows), np.array(rows))


def runs_of(folder: Path, **changed: list[float]) -> Runs:
    """Make runs of two equal seeds that do what the paper says, with other curves for those that are named."""
    runs = {}
    for arm in ARMS:
        without = "without" in arm
        silent = [0.5, 0.5, 0.5, 0.5] if without else [0.5, 0.45, 0.05, 0.04]
        decay = [60.0, 50, 6 if "hinge" in arm else 7, 5] if without else [60.0, 50, 41, 40]
        of = {"norm": decay, "active": silent, "dead": [0, 0, 0, 0 if without else 0.99], "bias": [0.0, -1, -1.9, -2]}
        of |= {name: curve for name, curve in changed.items() if name in of}
        table = {
            ("norm", "", "net.layers.0.weight"): of["norm"],
            ("norm", "", "net.layers.1.weight"): [value / 6 for value in of["norm"]],
            ("active_fraction", "val", "net.activations.0"): of["active"],
            ("dead_fraction", "val", "net.activations.0"): of["dead"],
        }
        if not without:
            table["bias_mean", "", "net.layers.0.bias"] = of["bias"]
            table["norm", "", "net.layers.0.bias"] = [10, 11, 20, 21]
        run = handmade(folder / arm, STEPS, {name: np.array([row, row], float) for name, row in table.items()})
        run.checkpoints.mkdir()
        last = torch.full((2, 4), of["bias"][-1])
        torch.save({"state_dict": {BIAS: last}, "global_step": STEPS[-1]}, run.last_checkpoint)
        save_file({BIAS: torch.zeros(2, 4)}, run.init)
        runs[arm] = run
    return runs


def test_remaining_is_of_each_seed() -> None:
    assert remaining(curves([10, 9, 8, 5], [10, 9, 8, 1])).tolist() == [0.5, 0.1]


def test_stable_part_is_of_the_last_doubling() -> None:
    """A power law loses the same part at every doubling, wherever it is measured."""
    steps = np.array([0, 1, 3, 10, 400, 700, 1000])
    norms = np.array([[9, *10.0 * steps[1:] ** -0.2], [5.0] * 7])
    assert stable_part(steps, norms) == pytest.approx([2**-0.2, 1], rel=0.005)


def test_steps_until_a_part_remains() -> None:
    found = steps_until(curves([10, 1, 5, 0], [10, 9, 8, 1.1], [10, 9, 1, 1]), 0.1)
    assert found.tolist()[::2] == [10, 500]
    assert np.isnan(found[1])


def test_largest_rise_is_above_any_earlier_value() -> None:
    assert largest_rise(curves([0, -1, -0.5, -2], [0, -1, -2, -3], [0, 1, 1, 1])).tolist() == [0.25, 0, np.inf]


def test_claims_hold_if_the_paper_is_right(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path))
    assert [claim.id for claim in claims if not within_bounds(claim)] == []
    assert len([claim for claim in claims if claim.kind == "control"]) == 1 + 3 * len(CONTROLS)


WRONG = {
    # Without biases this decays no more than with them, so those claims fail too.
    "norm": ([60.0, 60.0, 60.0, 50.0], {"hinge-decays", "logistic-decays", "hinge-faster", "logistic-biases-stable"}),
    "active": ([0.5, 0.5, 0.5, 0.3], {"logistic-silent"}),
    "dead": ([0, 0, 0, 0.5], {"hinge-no-death", "logistic-no-death", "logistic-dead"}),
    "bias": ([0.0, 1.0, 0.5, 0.5], {"logistic-bias-drift", "logistic-bias-monotone", "logistic-bias-of-each"}),
}


@pytest.mark.parametrize("curve", WRONG)
def test_claims_fail_if_the_paper_is_wrong(tmp_path: Path, curve: str) -> None:
    row, ids = WRONG[curve]
    claims = FIGURE.claims(runs_of(tmp_path, **{curve: row}))
    assert {claim.id for claim in claims if not within_bounds(claim) and claim.kind == "paper"} == ids


def test_what_claims_measure(tmp_path: Path) -> None:
    claims = {claim.id: claim.measured for claim in FIGURE.claims(runs_of(tmp_path))}
    expected = {
        "logistic-decays": 5 / 60,
        "hinge-faster": 1000 / 500,
        "logistic-biases-no-decay": 40 / 60,
        "logistic-biases-stable": 40 / 41,
        "logistic-biases-stable-together": np.hypot(40, 21) / np.hypot(41, 20),
        "logistic-biases-falls-early": 50 / 60,
        "logistic-bias-drift": -2,
        "logistic-bias-monotone": 0,
        "logistic-bias-of-each": 1,
        "logistic-silent": 0.04,
        "logistic-dead": 0.99,
        "hinge-with-biases-silent": 0.04 / 0.5,
    }
    assert {id: claims[id] for id in expected} == pytest.approx(expected)


def test_draws(tmp_path: Path) -> None:
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    assert [len(axis.get_legend().get_texts()) for axis in picture.axes] == [2, 4, 4, 6]


@pytest.mark.slow
def test_same_seeds_same_numbers(tmp_path: Path) -> None:
    found = []
    for number in range(2):
        runs = {}
        for arm in ARMS:
            run = tmp_path / f"{number}-{arm}"
            short = ["--trainer.max_steps", "20", "--data.train_size", "500", "--data.test_size", "50"]
            quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
            seeds = ["--replicas.seeds", "2", "--run_dir", str(run)]
            options = [*FIGURE.options("ci", arm), *short, *quiet, *seeds]
            folder = train(["fit", "--config", str(FIGURE.config_path(arm)), *options]).run_folder
            assert folder is not None
            runs[arm] = folder
        found.append(FIGURE.claims(runs))
    assert str(found[0]) == str(found[1])  # NaN is not itself
    assert {claim.n for claim in found[0]} == {2}
