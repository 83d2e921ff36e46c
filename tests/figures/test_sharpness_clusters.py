"""Clusters: counts, when each claim holds and fails, principal components, the picture, and a tiny real run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lnsgd.figures.sharpness import NEURONS, NO_NOISE, NOISE
from lnsgd.figures.sharpness_clusters import FIGURE, HIDDEN, counts, principal_components
from lnsgd.rng import generator
from lnsgd.run_folder import RunFolder
from tests.figures.handmade import handmade
from tests.figures.sharpness_runs import tiny, with_weights


def run_of(folder: Path, found: list[int]) -> RunFolder:
    """A run with so many clusters in the end, and neurons in three places."""
    curve = np.array([[HIDDEN, HIDDEN, count] for count in found], dtype=float)
    run = handmade(folder, [0, 10, 100], {("cluster_count", "", NEURONS): curve})
    draw = generator(0, "data")
    initial = torch.randn(len(found), HIDDEN, 3, dtype=torch.float64, generator=draw).numpy()
    trained = np.repeat(np.eye(3), HIDDEN // 3, axis=0)[None].repeat(len(found), axis=0)
    return with_weights(run, trained, initial)


CASES = {
    "as-in-the-paper": ([4, 5, 13], [30, 30, 29], []),
    "many": ([20, 30, 25], [30, 30, 30], [0]),
    "one-of-them-is-one": ([1, 4, 4], [30, 30, 30], [1]),
    "clusters-without-noise": ([4, 4, 4], [4, 4, 4], [2]),
}


@pytest.mark.parametrize(("noisy", "clean", "fail"), CASES.values(), ids=CASES)
def test_claims(noisy, clean, fail, tmp_path):
    runs = {NO_NOISE: run_of(tmp_path / "clean", clean), NOISE: run_of(tmp_path / "noisy", noisy)}
    claims = FIGURE.claims(runs)
    assert [number for number, claim in enumerate(claims) if not claim.holds] == fail
    assert {claim.n for claim in claims} == {3}
    assert counts(runs[NOISE]).tolist() == noisy


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
    texts = [{text.get_text() for text in axis.texts} for axis in picture.axes[:3]]
    assert texts[0] == {"30 clusters"}
    assert texts[2] == {"3 clusters", "10"}


def test_a_tiny_run_repeats_itself(tmp_path):
    short = ["--trainer.max_steps", "200", "--model.noise_steps", "100"]
    found = []
    for number in range(2):
        runs = {arm: tiny(FIGURE, arm, tmp_path / f"{number}-{arm}", *short) for arm in FIGURE.arms}
        found.append(FIGURE.claims(runs))
    assert found[0] == found[1]
    FIGURE.draw(runs).savefig(tmp_path / "picture.png")
