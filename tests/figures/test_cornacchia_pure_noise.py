"""The network on pure noise: what is read from norms, biases and firing, and when claims hold."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from lnsgd.figures.cornacchia_pure_noise import FIGURE, NEURONS, remaining
from lnsgd.figures.figure import Runs
from lnsgd.figures.results import Curves
from lnsgd.run_folder import RunFolder
from lnsgd.training import train
from tests.figures.handmade import handmade

STEPS = [0, 10, 1000]
ARMS = list(FIGURE.arms)
CLAIMS = 3 + 2 * 5


def to(start: float, *ends: float) -> np.ndarray:
    """A curve per seed, from a common start to its own end."""
    return np.array([[start, (start + end) / 2, end] for end in ends])


def run_of(
    folder: Path, arm: str, hidden: np.ndarray, bias: np.ndarray | None, active: np.ndarray, dead: np.ndarray
) -> RunFolder:
    curves = {
        ("norm", "", "net.layers.0.weight"): hidden,
        ("norm", "", "net.layers.1.weight"): hidden / 6,
        ("active_fraction", "val", "net.activations.0"): active,
        ("dead_fraction", "val", "net.activations.0"): dead,
    }
    if bias is not None:
        curves["bias_mean", "", "net.layers.0.bias"] = bias
    return handmade(folder / arm, STEPS, curves)


def as_the_paper_says(folder: Path) -> Runs:
    runs = {}
    for arm in ARMS:
        if "without" in arm:
            end = 1.0 if "hinge" in arm else 20.0
            curves = to(60, end, end + 1), None, to(0.5, 0.5, 0.5), to(0, 0, 0)
        else:
            curves = to(60, 40, 41), to(0, -2, -1), to(0.5, 0.1, 0.2), to(0, 0.2, 0.1)
        runs[arm] = run_of(folder, arm, *curves)
    return runs


def the_other_way_round(folder: Path) -> Runs:
    """Without biases nothing decays, hinge least; with biases everything but the neurons does."""
    runs = {}
    for arm in ARMS:
        if "without" in arm:
            end = 50.0 if "hinge" in arm else 40.0
            curves = to(60, end, end + 1), None, to(0.5, 0.5, 0.5), to(0, 0, 0)
        else:
            curves = to(60, 10, 11), to(0, 1, 0.5), to(0.5, 0.5, 0.45), to(0, 0, 0)
        runs[arm] = run_of(folder, arm, *curves)
    return runs


def test_remaining_is_of_each_seed():
    assert remaining(Curves(np.array(STEPS), to(10, 5, 1), to(0, 0, 0))).tolist() == [0.5, 0.1]


def test_claims_hold_where_the_paper_is_right(tmp_path):
    claims = FIGURE.claims(as_the_paper_says(tmp_path))
    assert [(claim.holds, claim.n) for claim in claims] == [(True, 2)] * CLAIMS


def test_claims_do_not_hold_where_it_is_not(tmp_path):
    assert [claim.holds for claim in FIGURE.claims(the_other_way_round(tmp_path))] == [False] * CLAIMS


def test_what_claims_measure(tmp_path):
    measured = [claim.measured for claim in FIGURE.claims(as_the_paper_says(tmp_path))]
    decay = [np.mean([1, 2]) / 60, np.mean([20, 21]) / 60, np.mean([1 / 20, 2 / 21])]
    with_hinge = [np.mean([40, 41]) / 60, np.mean([40 / 1, 41 / 2]), -1.5, 0.15, 0.15]
    with_logistic = [np.mean([40, 41]) / 60, np.mean([40 / 20, 41 / 21]), -1.5, 0.15, 0.15]
    assert measured == pytest.approx([*decay, *with_hinge, *with_logistic])


def test_claims_say_how_far_the_run_went(tmp_path):
    assert all("step 1,000" in claim.claim for claim in FIGURE.claims(as_the_paper_says(tmp_path)))


def test_draws(tmp_path):
    picture = FIGURE.draw(as_the_paper_says(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    assert [len(axis.get_legend().get_texts()) for axis in picture.axes] == [4, 4, 2, 4]


def test_constants_are_those_of_the_config():
    config = yaml.safe_load(FIGURE.config_path(ARMS[0]).read_text())
    assert config["model"]["init_args"]["net"]["init_args"]["widths"] == [30, NEURONS, 1]
    assert {c["init_args"].get("examples", 2000) for c in config["trainer"]["callbacks"]} == {2000}


@pytest.mark.slow
def test_same_seeds_same_numbers(tmp_path):
    found = []
    for number in range(2):
        runs = {}
        for arm in ARMS:
            run = tmp_path / f"{number}-{arm}"
            short = ["--trainer.max_steps", "20", "--data.train_size", "500", "--data.test_size", "50"]
            quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
            seeds = ["--replicas.seeds", "2", "--run_dir", str(run)]
            options = [*FIGURE.options("ci", arm), *short, *quiet, *seeds]
            runs[arm] = train(["fit", "--config", str(FIGURE.config_path(arm)), *options]).run_folder
        found.append(FIGURE.claims(runs))
    assert found[0] == found[1]
    assert [claim.n for claim in found[0]] == [2] * CLAIMS
