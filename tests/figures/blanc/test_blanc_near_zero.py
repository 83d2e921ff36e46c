"""Near zero error: directions, two copies, curves, claims on handmade rows, and the picture."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lnsgd.figures.blanc.escape_runs import EXAMPLES, instance, run_to
from lnsgd.figures.blanc.near_zero import FIGURE
from lnsgd.figures.blanc.near_zero_runs import (
    EXPLICIT,
    GENERIC,
    NOISE,
    STATIONARY,
    WINDOW_RATES,
    eigendirections,
    steps_to_half,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.runs.folder import RunFolder
from lnsgd.streams import SampleOrder
from tests.figures.handmade import within_bounds
from tests.tolerances import EXACT

SEEDS = 2


@pytest.fixture(scope="module")
def start():
    return instance(0)[0]


def test_steep_directions_are_eigenvectors(start):
    gammas, directions = eigendirections(start)
    mean = start.steep.T @ start.steep / EXAMPLES
    torch.testing.assert_close(mean @ directions, directions * gammas, **EXACT)
    torch.testing.assert_close(directions.T @ directions, torch.eye(EXAMPLES, dtype=torch.float64), **EXACT)


def test_two_copies_take_the_steps_of_the_formula_without_noise(start):
    lr, std, steps, seed = 0.02, 0.3, 50, 4
    (found,) = run_to(start, lr, [seed], [steps], std, copies=True)[0]
    weights = start.weights.clone()
    for i in SampleOrder(2 * EXAMPLES, "replacement", seed).take(0, steps).tolist():
        label = std if i < EXAMPLES else -std  # in addition to the example's label
        error = start.problem.residuals(weights)[0, i % EXAMPLES] - label
        weights = weights - 2 * lr * error * start.problem.jacobian(weights)[:, i % EXAMPLES]
    torch.testing.assert_close(found, (weights - start.weights).flatten(), rtol=1e-8, atol=1e-10)


def test_steps_to_half():
    assert steps_to_half({0: 1.0, 10: 0.8, 20: 0.4}) == pytest.approx(17.5)
    assert np.isnan(steps_to_half({0: 1.0, 10: 0.6}))


def by_hand(changes: dict[str, float] | None = None) -> pd.DataFrame:
    """Make rows with the paper's exponents, and values of one; changes are exponents and values by kind."""
    exact = {"distance": 0.4, "fall": 0.4, "largest_distance": 0.5, "variance": 0.0, "time": -1.0, "level": 1.0}
    single = {"correlation": 0.0, "copies_drift": 1.0, "copies_steep": 1.0, "speedup": 100.0}
    chosen = {**exact, **single, **(changes or {})}
    rows = []
    for seed in range(SEEDS):
        for kind, start in (("distance", GENERIC), ("fall", GENERIC), ("largest_distance", STATIONARY)):
            at = [{"kind": kind, "start": start, "lr": lr, "value": 3 * lr ** chosen[kind]} for lr in WINDOW_RATES]
            rows += [{"seed": seed, **row} for row in at]
        for gamma in (0.5, 2.0):
            rows.append(
                {
                    "seed": seed,
                    "kind": "variance",
                    "gamma": gamma,
                    "value": chosen["level"] * gamma ** chosen["variance"],
                }
            )
            rows.append({"seed": seed, "kind": "time", "gamma": gamma, "value": 0.25 * gamma ** chosen["time"]})
        rows += [{"seed": seed, "kind": kind, "value": chosen[kind]} for kind in single]
        for way in (NOISE, EXPLICIT):
            excess = [(0, 1.0), (10, 0.6), (20, 0.4)]
            rows += [{"seed": seed, "kind": "excess", "start": way, "step": t, "value": value} for t, value in excess]
    return pd.DataFrame(rows)


def runs_of(table: pd.DataFrame, folder: Path) -> Runs:
    run = RunFolder(folder)
    table.to_parquet(run.measures)
    return {"computed": run}


BROKEN = {
    "as-in-the-paper": ({}, set()),
    "stays-near": ({"distance": 0.5}, {"distance"}),
    "falls-as-η": ({"fall": 1.0}, {"fall"}),
    "leaves-a-stationary-point": ({"largest_distance": 0.4}, {"window"}),
    "anisotropic": ({"variance": 0.5}, {"isotropic"}),
    "too-wide": ({"level": 1.3}, {"variance"}),
    "correlated": ({"correlation": 0.05}, {"uncorrelated"}),
    "inverse-to-the-root": ({"time": -0.5}, {"relaxation"}),
    "another-drift": ({"copies_drift": 0.5}, {"copies-drift"}),
    "another-variance": ({"copies_steep": 0.5}, {"copies-variance"}),
    "not-faster": ({"speedup": 2.0}, {"explicit"}),
}


@pytest.mark.parametrize(("changes", "fail"), BROKEN.values(), ids=BROKEN)
def test_claims_on_handmade_rows(changes, fail, tmp_path):
    claims = FIGURE.claims(runs_of(by_hand(changes), tmp_path))
    assert {claim.id for claim in claims if not within_bounds(claim)} == fail
    assert {claim.n for claim in claims} == {SEEDS}


def test_draws(tmp_path):
    picture = FIGURE.draw(runs_of(by_hand(), tmp_path))
    picture.savefig(tmp_path / "picture.png")
    assert len(picture.axes) == 4
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_legend() for axis in picture.axes)
