"""Rank two: ranks from singular values, claims, picture, and a tiny run."""

from pathlib import Path

import numpy as np
import pytest

from lnsgd.figures.sharpness.rank_two import EXAMPLES, FIGURE, ranks
from lnsgd.figures.sharpness.shared import NO_NOISE, NOISE
from lnsgd.runs.folder import RunFolder
from tests.figures.handmade import within_bounds
from tests.figures.sharpness.sharpness_runs import run_of, tiny

STEPS = [0, 10, 100]


def of_ranks(folder: Path, found: list[int]) -> RunFolder:
    """Write a run whose instances have these ranks at the end, and full rank before."""
    ratios = {}
    for k in range(2, EXAMPLES + 1):
        last = np.array([0.5 / k if k <= rank else 1e-3 / k for rank in found])
        ratios[k] = np.stack([np.full(len(found), 0.4), np.full(len(found), 0.3), last], axis=1)
    return run_of(folder, STEPS, ratios, np.ones((len(found), len(STEPS))), {})


def runs_of(folder: Path, noisy: list[int], clean: list[int]) -> dict[str, RunFolder]:
    return {NO_NOISE: of_ranks(folder / "clean", clean), NOISE: of_ranks(folder / "noisy", noisy)}


def test_ranks(tmp_path):
    run = of_ranks(tmp_path / "run", [1, 2, 3, 6])
    assert ranks(run).tolist() == [1, 2, 3, 6]


CASES = {
    "as-in-the-paper": ([2, 2, 3, 4], [6, 5, 6, 6], []),
    "mostly-rank-three": ([3, 3, 3, 2], [6, 6, 6, 6], [0]),
    "some-rank-one": ([2, 2, 2, 1], [6, 6, 6, 6], [1]),
    "no-lower-rank": ([2, 2, 3, 3], [2, 2, 3, 3], [2, 3]),
    "low-rank-without-noise": ([2, 2, 2, 2], [4, 4, 4, 4], [3]),
}


@pytest.mark.parametrize(("noisy", "clean", "fail"), CASES.values(), ids=CASES)
def test_claims(noisy, clean, fail, tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, noisy, clean))
    assert [number for number, claim in enumerate(claims) if not within_bounds(claim)] == fail
    assert {claim.n for claim in claims} == {4}


def test_picture(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path, [3, 2, 2, 4], [6, 6, 5, 6]))
    picture.savefig(tmp_path / "picture.png")
    assert "seed 1" in picture.axes[0].get_title()  # the first of rank two
    heights = [patch.get_height() for patch in picture.axes[2].patches]
    assert heights == [0, 0, 0, 0, 1, 3, 0, 2, 1, 1, 0, 0]


def test_claims_of_a_tiny_run(tmp_path):
    short = ["--trainer.max_steps", "200", "--model.noise_steps", "100"]
    runs = {arm: tiny(FIGURE, arm, tmp_path / arm, *short) for arm in FIGURE.arms}
    found = FIGURE.claims(runs)
    assert found[3].measured == 1  # nothing has collapsed without noise
