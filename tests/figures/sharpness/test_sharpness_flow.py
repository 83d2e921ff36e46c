"""The flow: readings on curves that follow the flow exactly, claims, picture, and a tiny run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lnsgd.data import SphereInputs
from lnsgd.figures.sharpness.flow import ARMS, FIGURE, LINEAR, NEURONS, descent, deviations, flow, rates
from lnsgd.figures.sharpness.flow import Path as Curve
from lnsgd.figures.sharpness.shared import NO_NOISE, instances
from lnsgd.measures.closed_forms import retract
from lnsgd.rng import generator
from lnsgd.runs.folder import RunFolder
from tests.figures.handmade import handmade, within_bounds
from tests.figures.sharpness.sharpness_runs import config_of, run_of, tiny, with_weights

SEEDS, TIMES = 2, np.concatenate([[0.0], np.geomspace(0.05, 40, 40)])


def start() -> np.ndarray:
    """Return neurons with zero loss on each instance."""
    problem = instances(SphereInputs(), range(SEEDS), 0.1)
    drawn = 0.3 * torch.randn(SEEDS, NEURONS, 3, dtype=torch.float64, generator=generator(0, "data"))
    return retract(problem, drawn).numpy()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("clean") / "run"
    return with_weights(
        handmade(folder, [0], {("loss", "train", ""): np.zeros((SEEDS, 1))}, config=config_of()), start()
    )


def runs_of(folder: Path, clean: RunFolder, change: Callable[[Curve], Curve]) -> dict[str, RunFolder]:
    """Make runs that follow a changed flow, each at its own η²σ²."""
    runs = {NO_NOISE: clean}
    for arm, (lr, std) in ARMS.items():
        steps = np.unique(np.round(TIMES / (lr * std) ** 2).astype(int))
        at = steps * (lr * std) ** 2
        path = change(flow(runs, at))
        runs[arm] = run_of(folder / arm, steps.tolist(), {2: path.ratio}, path.trace, {})
    return runs


CASES: dict[str, tuple[Callable[[Curve], Curve], set[str]]] = {
    "the-flow-itself": (lambda path: path, set()),
    "another-ratio": (lambda path: path._replace(ratio=1.1 * path.ratio), {"σ₂/σ₁"}),
    "another-trace": (lambda path: path._replace(trace=1.1 * path.trace), {"trace"}),
    "too-slow": (lambda path: path._replace(ratio=path.ratio ** (1 / 8)), {"σ₂/σ₁", "rate", "theorem"}),
}


def kind(claim: str) -> str:
    """Return the kind of a claim."""
    if claim.startswith("label noise: at least"):
        return "theorem"
    if claim.startswith("label noise: rate"):
        return "rate"
    if claim.startswith("the flow"):
        return "flow"
    return "trace" if "trace of the Hessian follows" in claim else "σ₂/σ₁"


@pytest.mark.parametrize(("change", "fail"), CASES.values(), ids=CASES)
def test_claims(change, fail, clean, tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, clean, change))
    assert {kind(claim.claim) for claim in claims} == {"σ₂/σ₁", "trace", "flow", "rate", "theorem"}
    assert {kind(claim.claim) for claim in claims if not within_bounds(claim)} == fail
    assert {claim.n for claim in claims} == {SEEDS}
    assert len(claims) == 2 * len(ARMS) + 9


def test_the_flow_is_measured_by_the_preactivations_as_the_runs_are(clean):
    problem = instances(SphereInputs(), range(SEEDS), 0.1)
    values = np.linalg.svd(start() @ problem.inputs.mT.numpy(), compute_uv=False)
    assert flow({NO_NOISE: clean}, np.zeros(1)).ratio[:, 0] == pytest.approx(values[:, 1] / values[:, 0])


def test_time_is_that_of_the_drift(clean, tmp_path):
    runs = runs_of(tmp_path, clean, lambda path: path)
    for arm in ARMS:
        assert descent(runs, arm).s[-1] == pytest.approx(40, rel=0.01)


def test_deviations_are_relative_and_of_the_times_that_count():
    found, expected = np.array([[1.1, 5.0], [2.0, 3.0]]), np.array([[1.0, 1.0], [2.0, 2.0]])
    counted = np.array([[True, False], [True, True]])
    assert deviations(found, expected, counted) == pytest.approx([0.1, 0.25])


def test_rates_of_exponentials():
    s = np.linspace(0, 40, 400)
    path = Curve(s, np.exp(-np.array([[0.3], [0.7], [0.01]]) * s), np.ones((3, 400)))
    measured = rates(path)
    assert measured[:2] == pytest.approx([0.3, 0.7])
    assert np.isnan(measured[2])  # it never gets there
    assert LINEAR[0] < LINEAR[1] < 0.1


def test_picture(clean, tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path, clean, lambda path: path))
    picture.savefig(tmp_path / "picture.png")
    _, over_s, _, _ = picture.axes
    curves = [line.get_data() for line in over_s.lines[: len(ARMS)]]
    common = np.geomspace(0.1, 30, 20)
    interpolated = [np.interp(common, *curve) for curve in curves]
    assert np.ptp(interpolated, axis=0).max() < 0.05  # they are one curve
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_legend() for axis in picture.axes)


def test_a_tiny_run_is_reproducible(tmp_path):
    arm, found = "η = 0.05, σ = 0.2", []
    for number in range(2):
        runs = {
            name: tiny(FIGURE, name, tmp_path / f"{number}-{name}", "--trainer.max_steps", str(steps))
            for name, steps in {NO_NOISE: 20_000, arm: 2000}.items()
        }
        path = descent(runs, arm)
        found.append((*path, *flow(runs, path.s[1:])))
    assert all(np.array_equal(one, other) for one, other in zip(*found))
    assert np.isfinite(found[0][2]).all()
