"""A few labelled points: classes of units counted by hand, claims and picture."""

from pathlib import Path

import numpy as np
import torch

from lnsgd.data import SphereInputs
from lnsgd.figures.blanc.few_points import FIGURE, POINTS, TOLERANCE, UNITS, classes, classes_of, clean, noisy
from lnsgd.runs.folder import RunFolder
from tests.figures.handmade import handmade, within_bounds

SEEDS = 2


def run_of(folder: Path, hidden: np.ndarray, output: np.ndarray) -> RunFolder:
    """Write a run all of whose replicas end with given weights."""
    run = handmade(folder, [0, 100], {("implicit_regularizer", "train", ""): np.ones((SEEDS, 2))})
    run.checkpoints.mkdir()
    state = {"layers.0.weight": hidden, "layers.1.weight": output[None]}
    stacked = {f"stack.net.{name}": torch.from_numpy(value)[None].repeat(SEEDS, 1, 1) for name, value in state.items()}
    torch.save({"state_dict": stacked, "global_step": 100}, run.last_checkpoint)
    return run


def test_units_that_differ_by_sign_or_by_less_than_the_tolerance_are_one_class():
    inputs = np.eye(3)[:2]
    first, second = np.array([0.9, -0.2, 5.0]), np.array([-0.3, 0.4, 0.0])
    hidden = np.array([first, -first, first + 0.1 * TOLERANCE, second, second, np.zeros(3)])
    output = np.array([0.7, -0.7, 0.7, 0.5, -0.5, 0.1 * TOLERANCE])
    # The two units of ``second`` have the same activations and opposite output weights.
    assert classes_of(inputs, hidden, output) == 3
    assert classes_of(inputs, hidden[-1:], output[-1:]) == 0


def test_activations_count_and_not_weights():
    """Weights in directions that no point has do not make another unit."""
    (x,) = SphereInputs(examples=1).variant(0).splits["train"].inputs.double().numpy()
    away = np.linalg.svd(x[None])[2][1]
    hidden = np.array([x, x + 3 * away])
    assert classes_of(x[None], hidden, np.ones(2)) == 1


def test_claims_hold_for_few_classes_with_noise_and_many_without(tmp_path):
    generator = np.random.default_rng(0)
    many = generator.normal(size=(UNITS, 3))
    few = np.repeat(many[:1], UNITS, 0)
    ones = np.ones(UNITS)
    runs = {}
    for k in POINTS:
        runs[noisy(k)] = run_of(tmp_path / noisy(k), few, ones)
        runs[clean(k)] = run_of(tmp_path / clean(k), many, generator.normal(size=UNITS))
    assert classes(runs[noisy(2)], 2) == [1] * SEEDS
    assert [within_bounds(claim) for claim in FIGURE.claims(runs)] == [True] * 6
    swapped = {**runs, **{noisy(k): runs[clean(k)] for k in POINTS}, **{clean(k): runs[noisy(k)] for k in POINTS}}
    assert not any(within_bounds(claim) for claim in FIGURE.claims(swapped))
    FIGURE.draw(runs).savefig(tmp_path / "picture.png")
