"""Rank one: readings, when each claim holds and fails, the picture, and a tiny real run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lnsgd.data import SphereInputs
from lnsgd.figures.sharpness import NO_NOISE, NOISE, instances
from lnsgd.figures.sharpness_rank_one import CUBE, FIGURE, NEURONS
from lnsgd.run_folder import RunFolder
from tests.figures.sharpness_runs import run_of, tiny, with_weights

STEPS = [0, 10, 100]
SEEDS = 3
ARMS = (NO_NOISE, NOISE, CUBE)

# Last values of every instance: σ₂/σ₁, trace over its minimum, its exact trace over the one at zero loss, distance.
GOOD = {
    NO_NOISE: (0.3, 5.0, 1.0, 0.5),
    NOISE: (1e-4, 1.0, 1.0, 1e-4),
    CUBE: (1e-4, 1.0, 1.0, 1e-4),
}


def curve(last: float) -> np.ndarray:
    """Something else before the end."""
    return np.tile([0.9, 0.8, last], (SEEDS, 1))


def equal_neurons(arm: str) -> np.ndarray:
    """All neurons equal, as they should be."""
    problem = instances(SphereInputs(), range(SEEDS), 0.0 if arm == CUBE else 0.1)
    one = torch.linalg.solve(problem.inputs, problem.shares(NEURONS)[..., None]).mT
    return one.expand(-1, NEURONS, -1).numpy().copy()


def runs_of(folder: Path, changed: dict[str, tuple[float, ...]] | None = None) -> dict[str, RunFolder]:
    runs = {}
    for arm in ARMS:
        ratio, trace, exact, distance = ({**GOOD, **(changed or {})})[arm]
        others = {
            ("gradient_trace", "train", ""): 3 * np.ones((SEEDS, 3)),
            ("trace", "train", ""): 3 * curve(exact),
            ("distance", "train", ""): curve(distance),
        }
        run = run_of(folder / arm, STEPS, {2: curve(ratio)}, curve(trace), others)
        runs[arm] = with_weights(run, equal_neurons(arm))
    return runs


def test_claims_hold_where_the_paper_does(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path))
    assert [claim.holds for claim in claims] == [True] * 7
    assert {claim.n for claim in claims} == {SEEDS}
    assert [claim.measured for claim in claims] == pytest.approx([1, 1e-4, 1, 1, 0.3, 5, 1])


BROKEN = {
    "features-of-rank-two": ({NOISE: (0.02, 1.0, 1.0, 1e-4)}, [0]),
    "other-neurons": ({NOISE: (1e-4, 1.0, 1.0, 0.1)}, [1]),
    "trace-too-large": ({NOISE: (1e-4, 1.1, 1.0, 1e-4)}, [2]),
    "trace-below-its-minimum": ({NOISE: (1e-4, 0.99, 1.0, 1e-4)}, [2]),
    "lemma-without-the-2": ({NOISE: (1e-4, 1.0, 0.5, 1e-4)}, [3]),
    "rank-one-without-noise": ({NO_NOISE: (0.01, 1.0, 1.0, 0.5)}, [4, 5]),
    "cube-of-rank-two": ({CUBE: (0.3, 1.0, 1.0, 0.5)}, [6]),
}


@pytest.mark.parametrize(("changed", "fail"), BROKEN.values(), ids=BROKEN)
def test_each_claim_can_fail(changed, fail, tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, changed))
    assert [number for number, claim in enumerate(claims) if not claim.holds] == fail


def test_one_instance_is_enough_to_fail(tmp_path):
    runs = runs_of(tmp_path)
    ratio = curve(1e-4)
    ratio[1, -1] = 0.5
    others = {(name, "train", ""): np.ones((SEEDS, 3)) for name in ("gradient_trace", "trace", "distance")}
    runs[NOISE] = run_of(tmp_path / "other", STEPS, {2: ratio}, curve(1.0), others)
    claim = FIGURE.claims(runs)[0]
    assert (claim.holds, claim.measured) == (False, pytest.approx(2 / 3))


def test_picture(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    neurons = picture.axes[2]
    for line in neurons.lines:  # equal neurons are on the diagonal
        assert line.get_ydata() == pytest.approx(line.get_xdata(), abs=1e-6)
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_legend() for axis in picture.axes)


def test_a_tiny_run_repeats_itself_and_gives_numbers(tmp_path):
    short = ["--trainer.max_steps", "300", "--model.noise_steps", "200"]
    found = []
    for number in range(2):
        runs = {arm: tiny(FIGURE, arm, tmp_path / f"{number}-{arm}", *short) for arm in ARMS}
        found.append(FIGURE.claims(runs))
    assert found[0] == found[1]
    assert np.isfinite([claim.measured for claim in found[0]]).all()
    assert [claim.n for claim in found[0]] == [2] * 7
    FIGURE.draw(runs).savefig(tmp_path / "picture.png")
