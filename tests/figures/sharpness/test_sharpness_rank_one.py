"""Rank one: readings, claims, picture, and a tiny run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lnsgd.data import SphereInputs
from lnsgd.figures.sharpness.rank_one import CUBE, FIGURE, HIDDEN, loss
from lnsgd.figures.sharpness.shared import NO_NOISE, NOISE, instances
from lnsgd.runs.folder import RunFolder
from tests.figures.handmade import within_bounds
from tests.figures.sharpness.sharpness_runs import KEY, run_of, tiny, with_weights

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
    """Make a curve that ends with a value and has others before."""
    return np.tile([0.9, 0.8, last], (SEEDS, 1))


def equal_neurons(arm: str) -> np.ndarray:
    """Return equal neurons with zero loss, as the theorem says."""
    problem = instances(SphereInputs(), range(SEEDS), 0.0 if arm == CUBE else 0.1)
    one = torch.linalg.solve(problem.inputs, problem.shares(HIDDEN)[..., None]).mT
    return one.expand(-1, HIDDEN, -1).numpy().copy()


def runs_of(folder: Path, changed: dict[str, tuple[float, ...]] | None = None) -> dict[str, RunFolder]:
    runs = {}
    for arm in ARMS:
        ratio, trace, exact, distance = ({**GOOD, **(changed or {})})[arm]
        others = {
            ("gradient_trace", "train", ""): 3 * np.ones((SEEDS, 3)),
            ("trace", "train", ""): 3 * curve(exact),
            ("distance", "train", ""): curve(distance),
        }
        run = run_of(folder / arm, STEPS, {2: curve(ratio)}, curve(trace), others, nu=0.0 if arm == CUBE else 0.1)
        runs[arm] = with_weights(run, equal_neurons(arm))
    return runs


def test_claims_hold_if_the_paper_is_right(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path))
    assert [within_bounds(claim) for claim in claims] == [True] * 9
    assert {claim.n for claim in claims} == {SEEDS}
    assert [claim.measured for claim in claims] == pytest.approx([0, 1, 1, 1e-4, 1, 1, 0.3, 5, 1])


BROKEN = {
    "features-of-rank-two": ({NOISE: (0.02, 1.0, 1.0, 1e-4)}, [1, 2]),
    "other-neurons": ({NOISE: (1e-4, 1.0, 1.0, 0.1)}, [3]),
    "trace-too-large": ({NOISE: (1e-4, 1.1, 1.0, 1e-4)}, [4]),
    "trace-below-its-minimum": ({NOISE: (1e-4, 0.99, 1.0, 1e-4)}, [4]),
    "lemma-without-the-2": ({NOISE: (1e-4, 1.0, 0.5, 1e-4)}, [5]),
    "rank-one-without-noise": ({NO_NOISE: (0.01, 1.0, 1.0, 0.5)}, [6, 7]),
    "cube-of-rank-two": ({CUBE: (0.3, 1.0, 1.0, 0.5)}, [8]),
}


@pytest.mark.parametrize(("changed", "fail"), BROKEN.values(), ids=BROKEN)
def test_each_claim_can_fail(changed, fail, tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, changed))
    assert [number for number, claim in enumerate(claims) if not within_bounds(claim)] == fail


def test_one_instance_is_enough_to_fail(tmp_path):
    runs = runs_of(tmp_path)
    ratio = curve(1e-4)
    ratio[1, -1] = 0.5
    others = {(name, "train", ""): np.ones((SEEDS, 3)) for name in ("gradient_trace", "trace", "distance")}
    other = run_of(tmp_path / "other", STEPS, {2: ratio}, curve(1.0), others)
    runs[NOISE] = with_weights(other, equal_neurons(NOISE))
    claim = FIGURE.claims(runs)[1]
    assert (within_bounds(claim), claim.measured) == (False, pytest.approx(2 / 3))


def test_the_loss_is_that_of_the_last_weights(tmp_path):
    run = runs_of(tmp_path)[NOISE]
    assert loss(run) == pytest.approx([0] * SEEDS, abs=1e-15)
    problem, moved = instances(SphereInputs(), range(SEEDS), 0.1), equal_neurons(NOISE) + 0.1
    torch.save({"state_dict": {KEY: torch.from_numpy(moved)}, "global_step": 100}, run.last_checkpoint)
    z = moved @ problem.inputs.mT.numpy()
    errors = (z**3 + 0.1 * z).sum(1) - problem.targets.numpy()
    assert loss(run) == pytest.approx((errors**2).sum(1))


def test_picture(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    neurons = picture.axes[2]
    for line in neurons.lines:  # equal neurons are on the diagonal
        assert line.get_ydata() == pytest.approx(line.get_xdata(), abs=1e-6)
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_legend() for axis in picture.axes)


def test_claims_of_a_tiny_run_are_finite(tmp_path):
    short = ["--trainer.max_steps", "300", "--model.noise_steps", "200"]
    runs = {arm: tiny(FIGURE, arm, tmp_path / arm, *short) for arm in ARMS}
    found = FIGURE.claims(runs)
    assert np.isfinite([claim.measured for claim in found]).all()
    assert [claim.n for claim in found] == [2] * 9
    FIGURE.draw(runs).savefig(tmp_path / "picture.png")
