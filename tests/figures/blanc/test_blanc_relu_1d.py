"""One-dimensional ReLU networks: reading of runs, claims and picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lnsgd.data import Points1D
from lnsgd.figures.blanc.relu_1d import (
    CLEAN,
    FIGURE,
    HIDDEN_ONLY,
    KEPT,
    NOISY,
    OUTPUT_ONLY,
    curves,
    distance_from_mean,
    first_below,
    is_simplest,
    points,
    relative_regularizer,
    simplest_lengths,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import Curves
from lnsgd.measures.closed_forms import minimal_regularizer
from lnsgd.measures.geometry import curve_length
from lnsgd.models import MLP
from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

STEPS = [0, 10, 100, 1000, 10_000]
SEEDS = 3
ARMS = list(FIGURE.arms)
SHORTEST, LONGEST = simplest_lengths()
LEAST = minimal_regularizer(*points())

# Names of the measures, as a run has them.
LOSS, LENGTH = ("loss", "train", ""), ("curve_length", "", "")
CHANGES, DEVIATION = ("convexity_changes", "", ""), ("chord_deviation", "train", "")
REGULARIZER = ("implicit_regularizer", "train", "")

# Each arm as the paper says: what it is at each of the steps.
COMPLICATED = {
    LOSS: [5, 1e-2, 1e-3, 1e-4, 1e-5],
    LENGTH: [9, 6, 5.5, 5.3, 5.2],
    CHANGES: [8, 8, 8, 7, 7],
    DEVIATION: [2, 1, 0.4, 0.3, 0.3],
    REGULARIZER: [50 * LEAST] * 5,
}
SIMPLE = {
    LOSS: [5, 1e-2, 1e-2, 1e-2, 1e-6],
    LENGTH: [9, 6, 5.5, 4.3, 4.2],
    CHANGES: [8, 8, 8, 2, 1],
    DEVIATION: [2, 1, 0.4, 0.1, 0.001],
    REGULARIZER: [50 * LEAST, 40 * LEAST, 20 * LEAST, 2 * LEAST, 1.02 * LEAST],
}


def weights_of(hidden: int, spread: float) -> dict[str, torch.Tensor]:
    """Make networks that connect the points, except for one unit with a kink at −0.1 that differs between seeds."""
    x, y = points()
    slopes = np.diff(y) / np.diff(x)
    sizes = np.tile(np.diff(slopes), (SEEDS, 1))
    sizes = np.concatenate([sizes, spread * np.arange(SEEDS)[:, None]], 1)
    kinks = np.append(x[1:-1], -0.1)
    padding = hidden - len(kinks)
    ones = np.pad(np.ones_like(sizes), [(0, 0), (0, padding)])
    return {
        "layers.0.weight": torch.tensor(ones[:, :, None]),
        "layers.0.bias": torch.tensor(np.pad(-np.tile(kinks, (SEEDS, 1)), [(0, 0), (0, padding)])),
        "layers.1.weight": torch.tensor(np.pad(sizes, [(0, 0), (0, padding)])[:, None, :]),
        "layers.1.bias": torch.full((SEEDS, 1), y[0] - slopes[0] * x[0]),
        "skip.weight": torch.full((SEEDS, 1, 1), slopes[0]),
    }


def write(folder: Path, behaviour: Mapping, spread: float = 0.0, label_std: float = 0.0) -> RunFolder:
    run = handmade(folder, STEPS, {name: np.tile(values, (SEEDS, 1)) for name, values in behaviour.items()})
    settings = {"data": {"init_args": {"label_std": label_std}}, "model": {"init_args": {"noise_steps": 9000}}}
    run.config.write_text(yaml.safe_dump(settings))
    state = {f"stack.net.{name}": tensor for name, tensor in weights_of(14, spread).items()}
    run.last_checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state}, run.last_checkpoint)
    return run


def runs_of(folder: Path, behaviour: Mapping, spreads: Mapping) -> Runs:
    return {
        arm: write(folder / str(i), behaviour[arm], spreads[arm], 1.0 if arm == KEPT else 0.0)
        for i, arm in enumerate(ARMS)
    }


@pytest.fixture
def as_in_the_paper(tmp_path: Path) -> Runs:
    behaviour = {arm: SIMPLE if arm == NOISY else COMPLICATED for arm in ARMS}
    return runs_of(tmp_path, behaviour, {arm: 0.0 if arm == NOISY else 0.5 for arm in ARMS})


# --- readings ---


def test_points_are_those_of_the_data():
    data = Points1D(seed=3, label_std=0.5)
    data.setup()
    x, y = points(3, 0.5)
    assert torch.equal(torch.tensor(y).float(), data.splits["train"].labels[:, 0])
    assert x.tolist() == points()[0].tolist()
    assert y.tolist() != points()[1].tolist()


def test_simplest_functions_lie_between_connected_points_and_zigzag():
    x = np.array([-1, -1 / 3, 1 / 3, 1])
    assert pytest.approx(curve_length(x, np.array([-2, 2, -2, 2]) / 3)) == LONGEST
    assert curve_length(*points()) == SHORTEST < LONGEST


def test_curves_are_those_of_the_networks(tmp_path):
    run = write(tmp_path / "run", SIMPLE, spread=0.7)
    x = np.linspace(-1, 1, 101)
    found = curves(run, x)
    for seed in range(SEEDS):
        net = MLP([1, 14, 1], skip=True).double()
        net.load_state_dict({name: tensor[seed] for name, tensor in weights_of(14, 0.7).items()})
        expected = net(torch.tensor(x).unsqueeze(1)).detach().numpy()[:, 0]
        np.testing.assert_allclose(found[seed], expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[0], np.interp(x, *points()), atol=1e-6)


def test_distance_from_the_mean_curve():
    values = np.array([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, -6.0]])
    assert distance_from_mean(values).tolist() == [2.0, 2.0, 4.0]


def test_first_below():
    values = np.array([[0.0, 9.0, 2.0, 1.0], [0.0, 9.0, 9.0, 3.0]])
    found = first_below(Curves(np.array([0, 5, 6, 7]), values, values), 2.0)
    assert found[0] == 6  # what was below before the first step does not count
    assert np.isnan(found[1])
    own = first_below(Curves(np.array([0, 5, 6, 7]), values, values), np.array([9.0, 3.0]))
    assert own.tolist() == [5, 7]


def test_simple_takes_both(tmp_path):
    run = write(tmp_path / "simple", SIMPLE)
    assert is_simplest(run).tolist() == [True] * SEEDS
    for name, end in ((CHANGES, 2), (DEVIATION, 0.03)):
        other = {**SIMPLE, name: [*SIMPLE[name][:-1], end]}
        assert is_simplest(write(tmp_path / name[0], other)).tolist() == [False] * SEEDS


def test_the_regularizer_is_relative_to_the_least_for_the_labels_of_each_seed(tmp_path):
    clean, kept = write(tmp_path / "clean", SIMPLE), write(tmp_path / "kept", SIMPLE, label_std=1.0)
    assert relative_regularizer(clean).last == pytest.approx([1.02] * SEEDS)
    least = [minimal_regularizer(*points(seed, 1.0)) for seed in range(SEEDS)]
    assert relative_regularizer(kept).last == pytest.approx([1.02 * LEAST / one for one in least])


# --- claims ---


def test_claims_hold_for_what_the_paper_reports(as_in_the_paper):
    claims = FIGURE.claims(as_in_the_paper)
    assert [(claim.claim, within_bounds(claim)) for claim in claims] == [(claim.claim, True) for claim in claims]
    assert len(claims) == 16
    assert {claim.n for claim in claims} == {SEEDS}


def test_claims_fail_if_noise_does_the_opposite(tmp_path):
    wild = {LOSS: [5, 4, 3, 2, 1], LENGTH: [9, 6, 5.5, 5.3, 5.8], REGULARIZER: [50 * LEAST] * 4 + [20 * LEAST]}
    behaviour = dict.fromkeys(ARMS, SIMPLE)
    behaviour[CLEAN] = {**SIMPLE, LOSS: [5, 4, 3, 2, 1]}
    behaviour[NOISY] = {**COMPLICATED, **wild}
    spreads = dict.fromkeys(ARMS, 0.0) | {NOISY: 0.5}
    claims = FIGURE.claims(runs_of(tmp_path, behaviour, spreads))
    assert [(claim.claim, within_bounds(claim)) for claim in claims] == [(claim.claim, False) for claim in claims]


def test_a_length_that_falls_with_the_loss_fails_the_claim(tmp_path):
    at_once = {**SIMPLE, LENGTH: [9, 4.3, 4.3, 4.3, 4.2]}
    behaviour = {arm: at_once if arm == NOISY else COMPLICATED for arm in ARMS}
    claims = FIGURE.claims(runs_of(tmp_path, behaviour, dict.fromkeys(ARMS, 0.0)))
    (later,) = [claim for claim in claims if "much later" in claim.claim]
    assert (within_bounds(later), later.measured) == (False, 0.0)


# --- the picture ---


def test_draws(as_in_the_paper, tmp_path):
    picture = FIGURE.draw(as_in_the_paper)
    picture.savefig(tmp_path / "picture.png")
    above, below = picture.subfigs
    assert [len(axis.lines) for axis in above.axes] == [SEEDS, SEEDS, 2 * SEEDS]
    assert [axis.get_xscale() for axis in below.axes] == ["log"] * 4


# --- the settings ---


def test_arms_train_what_they_say():
    options = {arm: " ".join(FIGURE.options("paper", arm)) for arm in ARMS}
    for arm in (CLEAN, KEPT):
        assert "--model.label_noise.std 0" in options[arm]
    assert "--data.label_std 1" in options[KEPT]
    assert "--model.net.train_layers [1]" in options[OUTPUT_ONLY]
    assert "--model.net.train_layers [0]" in options[HIDDEN_ONLY]
    assert options[NOISY] == ""


@pytest.mark.slow
def test_same_seeds_same_numbers(tmp_path):
    found = []
    for number in range(2):
        runs = {}
        for arm, options in FIGURE.arms.items():
            run = tmp_path / f"{number}-{arm}"
            short = ["--model.net.widths", "[1,10,1]", "--model.noise_steps", "800", "--trainer.max_steps", "1000"]
            quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
            seeds = ["--replicas.seeds", "2", "--run_dir", str(run)]
            cli = train(["fit", "--config", str(FIGURE.config_path(arm)), *options, *short, *quiet, *seeds])
            runs[arm] = cli.run_folder
        found.append(FIGURE.claims(runs))
    assert str(found[0]) == str(found[1])  # NaN is not itself
    assert {claim.n for claim in found[0]} == {2}
