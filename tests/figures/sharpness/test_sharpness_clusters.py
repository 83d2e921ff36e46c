"""Clusters: counts, claims, principal components, picture, and a tiny run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lnsgd.data import SphereInputs
from lnsgd.figures.sharpness.clusters import (
    FIGURE,
    HIDDEN,
    approach,
    counts,
    feature_ranks,
    feature_vectors,
    principal_components,
)
from lnsgd.figures.sharpness.shared import FEATURES, NO_NOISE, NOISE
from lnsgd.rng import generator
from lnsgd.runs.folder import RunFolder
from tests.figures.handmade import handmade, within_bounds
from tests.figures.sharpness.sharpness_runs import KEY, config_of, tiny, with_weights


def run_of(folder: Path, found: list[int], places: int = 3, apart: float = 0.05) -> RunFolder:
    """Write a run with these numbers of clusters at the end, and neurons in a few places, from near which they came."""
    curve = np.array([[HIDDEN, HIDDEN, count] for count in found], dtype=float)
    run = handmade(folder, [0, 10, 100], {("cluster_count", "train", FEATURES): curve}, config=config_of())
    draw = generator(0, "data")
    initial = torch.randn(len(found), HIDDEN, 10, dtype=torch.float64, generator=draw).numpy()
    trained = np.repeat(np.eye(10)[:places], HIDDEN // places, axis=0)[None].repeat(len(found), axis=0)
    with_weights(run, trained, initial)
    between = {KEY: torch.from_numpy(trained + apart * initial)}
    torch.save({"state_dict": between, "global_step": 10}, run.checkpoints / "epoch=0-step=10.ckpt")
    return run


CASES = {
    "as-in-the-paper": ([4, 5, 13], [30, 30, 29], []),
    "many": ([20, 30, 25], [30, 30, 30], [0]),
    "one-of-them-is-one": ([1, 4, 4], [30, 30, 30], [1]),
    "clusters-without-noise": ([4, 4, 4], [4, 4, 4], [5]),
}


@pytest.mark.parametrize(("noisy", "clean", "fail"), CASES.values(), ids=CASES)
def test_claims(noisy, clean, fail, tmp_path):
    runs = {NO_NOISE: run_of(tmp_path / "clean", clean), NOISE: run_of(tmp_path / "noisy", noisy, places=6)}
    claims = FIGURE.claims(runs)
    assert [number for number, claim in enumerate(claims) if not within_bounds(claim)] == fail
    assert {claim.n for claim in claims} == {3}
    assert counts(runs[NOISE]).tolist() == noisy


def test_a_low_rank_fails_the_claim_on_the_rank(tmp_path):
    run = run_of(tmp_path / "run", [3, 3], places=3)
    assert feature_ranks(run).tolist() == [3, 3]
    claims = FIGURE.claims({NO_NOISE: run_of(tmp_path / "clean", [30, 30]), NOISE: run})
    assert [claim.id for claim in claims if not within_bounds(claim)] == ["high-rank"]


def test_neurons_that_move_apart_fail_the_claims_on_close_pairs(tmp_path):
    run = run_of(tmp_path / "run", [4, 4], places=6)
    files = [run.last_checkpoint, run.checkpoints / "epoch=0-step=10.ckpt"]
    late, early = (torch.load(file)["state_dict"] for file in files)
    for file, tensors, step in zip(files, (early, late), (100, 10)):
        torch.save({"state_dict": {KEY: tensors[KEY] + 1e-3 * early[KEY]}, "global_step": step}, file)
    close, far = approach(run, 0)
    assert close > 5 > far > 0.5
    claims = FIGURE.claims({NO_NOISE: run_of(tmp_path / "clean", [30, 30]), NOISE: run})
    assert {claim.id for claim in claims if not within_bounds(claim)} == {"close-pairs", "closer-pairs"}


def test_principal_components_are_the_directions_of_largest_variance():
    draw = generator(0, "data")
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=draw)).Q
    spread = torch.tensor([1.0, 9.0, 0.1, 3.0], dtype=torch.float64)
    points = (spread * torch.randn(4000, 4, dtype=torch.float64, generator=draw)) @ basis.T + 5
    centre, directions = principal_components(points.numpy())
    assert centre == pytest.approx(points.mean(0).numpy())
    assert directions.shape == (4, 2)
    overlap = np.abs(directions.T @ basis.numpy()[:, [1, 3]])
    assert overlap == pytest.approx(np.eye(2), abs=0.05)
    assert np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0).min() > 0


def test_picture(tmp_path):
    picture = FIGURE.draw({NO_NOISE: run_of(tmp_path / "a", [30, 30]), NOISE: run_of(tmp_path / "b", [3, 4])})
    picture.savefig(tmp_path / "picture.png")
    texts = [{text.get_text() for text in axis.texts} for axis in picture.axes[:2]]
    assert texts == [{"3 clusters", "10"}] * 2  # of the weights


def test_feature_vectors_are_the_preactivations_of_each_neuron_over_training(tmp_path):
    run = run_of(tmp_path / "run", [3, 3])
    inputs = SphereInputs(10, 15).variant(1).splits["train"].inputs
    before, _, after = feature_vectors(run, 1)
    assert before.shape == after.shape == (HIDDEN, 15)
    assert after[11] == pytest.approx(inputs[:, 1].double().numpy())  # neuron 11 is the second unit vector


def test_claims_and_picture_of_a_tiny_run(tmp_path):
    short = ["--trainer.max_steps", "200", "--model.noise_steps", "100"]
    runs = {arm: tiny(FIGURE, arm, tmp_path / arm, *short) for arm in FIGURE.arms}
    found = FIGURE.claims(runs)
    assert [claim.n for claim in found] == [2] * 6
    FIGURE.draw(runs).savefig(tmp_path / "picture.png")
