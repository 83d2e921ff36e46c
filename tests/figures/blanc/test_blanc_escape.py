"""Drift from zero error (Lemma 6): means, extrapolation, runs from given weights, claims and picture."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lnsgd import rng
from lnsgd.figures.blanc import escape as blanc_escape
from lnsgd.figures.blanc import escape_runs
from lnsgd.figures.blanc.escape import EXTRAPOLATED, FIGURE, GENERIC, RUNS, STATIONARY, Mean, exponents, zero_weights
from lnsgd.figures.blanc.escape_runs import END, EXAMPLES, LOOKS, STD, deviations, instance, steps_to_end
from lnsgd.figures.framework.figure import Runs
from lnsgd.label_noise import GaussianNoise
from lnsgd.runs.folder import RunFolder
from lnsgd.streams import NoiseStream, SampleOrder
from tests.figures import tiny
from tests.figures.handmade import within_bounds
from tests.tolerances import EXACT, STANDARD_ERRORS

SEEDS = 3

# Which claim is which.
SLOPE, COSINE, FLOW, SIGMAS, COLLAPSE, ORDER, REST, EXCESS, EXPONENT, LEVEL = range(10)


# --- means and what is made of them ---


def test_mean_of_samples():
    samples = torch.randn(50, 3, dtype=torch.float64, generator=rng.generator(0, "data"))
    mean = Mean.of(samples)
    torch.testing.assert_close(mean.value, samples.mean(0), **EXACT)
    np.testing.assert_allclose(mean.covariance.numpy(), np.cov(samples.T.numpy()) / 50, rtol=1e-10)
    along = samples @ torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64) / 6
    slope, error = mean.slope(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64))
    assert slope == pytest.approx(along.mean().item())
    assert error == pytest.approx(along.std().item() / 50**0.5)


def test_excess_is_standard_normal_without_drift_and_large_with_drift():
    draw = rng.generator(1, "data")
    scale = torch.tensor([1.0, 0.5, 0.1, 0.0], dtype=torch.float64)
    samples = scale * torch.randn(2000, 60, 4, dtype=torch.float64, generator=draw)
    found = np.array([Mean.of(of_runs).excess for of_runs in samples])
    assert abs(found.mean()) < STANDARD_ERRORS * found.std() / 2000**0.5 + 0.05  # the covariance is estimated
    assert found.std() == pytest.approx(1, abs=0.15)
    assert Mean.of(samples[0] + 1).excess > 20


@pytest.mark.parametrize("rates", [[0.1], [0.2, 0.1], [0.04, 0.02, 0.01, 0.005]], ids=str)
def test_polynomials_are_extrapolated_exactly(rates):
    polynomial = np.polynomial.Polynomial([7.0, 3.0, -2.0, 11.0][: len(rates)])
    value = sum(weight * polynomial(rate) for weight, rate in zip(zero_weights(rates), rates))
    assert value == pytest.approx(7.0)


def test_errors_of_an_extrapolation():
    one = torch.eye(2, dtype=torch.float64)
    value = torch.ones(2, dtype=torch.float64)
    mean = Mean.extrapolated({0.2: Mean(3 * value, one), 0.1: Mean(2 * value, 4 * one)})
    torch.testing.assert_close(mean.value, value, **EXACT)  # 2·2 − 3
    torch.testing.assert_close(mean.covariance, 17 * one, **EXACT)  # 2²·4 + 1


# --- where runs start, and runs ---


@pytest.fixture(scope="module")
def starts() -> tuple[escape_runs.Start, escape_runs.Start]:
    return instance(0)


def test_starts_have_zero_error_and_only_one_has_a_drift(starts):
    start, rest = starts
    assert start.problem is rest.problem
    for one in starts:
        assert one.problem.residuals(one.weights).abs().max() < 1e-10
        assert one.smallest_eigenvalue >= escape_runs.STILL_STEEP
        assert (one.steep @ one.drift).abs().max() < 1e-10
        basis = torch.linalg.svd(one.steep)[2][EXAMPLES:]  # of the null space of the Hessian
        anything = torch.arange(18, dtype=torch.float64)
        torch.testing.assert_close(one.flat_part(anything), basis.T @ basis @ anything, **EXACT)
    assert start.smallest_eigenvalue >= escape_runs.STEEP
    assert rest.drift.norm() <= escape_runs.LEFT * start.drift.norm()
    assert rest.problem.regularizer(rest.weights) < start.problem.regularizer(start.weights)


def test_instances_depend_on_the_seed_alone(starts):
    torch.manual_seed(3)
    assert torch.equal(instance(0)[0].weights, starts[0].weights)
    assert not torch.equal(instance(1)[0].weights, starts[0].weights)


def test_a_run_takes_the_steps_of_the_formula(starts, monkeypatch):
    """θ ← θ − 2η(h(x_i) − y_i − z)∇h(x_i), one step at a time."""
    monkeypatch.setattr(escape_runs, "END", 0.004)
    start, lr, seeds = starts[0], 0.04, [5, 9]
    steps = escape_runs.steps_to_end(lr)
    found = deviations(start, lr, seeds)
    assert found.shape == (LOOKS, 2, 18)
    for replica, seed in enumerate(seeds):
        order = SampleOrder(EXAMPLES, "replacement", seed).take(0, steps).tolist()
        noise = NoiseStream(GaussianNoise(STD), seed, (1,)).take(0, steps)[:, 0].tolist()
        weights = start.weights.clone()
        for i, z in zip(order, noise):
            error = start.problem.residuals(weights)[0, i] - z
            weights = weights - 2 * lr * error * start.problem.jacobian(weights)[:, i]
        expected = (weights - start.weights).flatten()
        torch.testing.assert_close(found[-1, replica], expected, rtol=1e-8, atol=1e-10)


# --- what is computed ---


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take few runs at large step sizes."""
    monkeypatch.setattr(blanc_escape, "RUNS", {0.04: 12, 0.02: 12})


@pytest.mark.usefixtures("few")
def test_numbers_are_near_the_prediction_and_reproducible(tmp_path):
    run = tiny.run(FIGURE, tmp_path / "one", seeds=1)
    table = pd.read_parquet(run["computed"].measures)
    means = table[table["kind"] == "mean"]
    assert len(means) == 2 * (2 * LOOKS + 1)
    assert len(table[table["kind"] == "parameter"]) == 2 * 2 * 18
    limit = means[means["lr"] == EXTRAPOLATED].set_index("start")
    assert limit.loc[GENERIC, "flow_slope"] == pytest.approx(1, abs=0.1)
    assert limit.loc[GENERIC, "cosine"] > 0.98
    assert limit.loc[STATIONARY, "size"] < 0.1 * limit.loc[GENERIC, "size"]
    again = pd.read_parquet(tiny.run(FIGURE, tmp_path / "two", seeds=1)["computed"].measures)
    pd.testing.assert_frame_equal(table, again, check_exact=True)


# --- what is judged ---


def by_hand() -> pd.DataFrame:
    """Make rows with slopes 1 + 2η on the flow, 3 % less on Lemma 6's line, and only noise at a stationary point."""
    rows = []
    for seed in range(SEEDS):
        for start in (GENERIC, STATIONARY):
            drift = 1.0 if start == GENERIC else 0.0
            for lr in (*RUNS, EXTRAPOLATED):
                looks = [END] if lr == EXTRAPOLATED else [END * look / LOOKS for look in range(1, LOOKS + 1)]
                for s in looks:
                    slope = 1 + 2 * lr
                    numbers = {"slope": 0.97 * slope, "flow_slope": slope, "cosine": 0.999}
                    errors = {"slope_stderr": 0.01, "flow_slope_stderr": 0.01, "size_stderr": 0.001}
                    size = {"size": drift * slope * s + 0.0001, "predicted_size": drift * s, "flow_size": drift * s}
                    excess = {"excess": (-1.0, 1.0, 0.5)[seed] if start == STATIONARY else 1000.0}
                    steep = {"steep": lr * STD**2 * EXAMPLES if lr else np.nan}
                    described = {"seed": seed, "kind": "mean", "start": start, "lr": lr, "s": s}
                    rows.append(described | numbers | errors | size | excess | steep)
                if lr:
                    described = {"seed": seed, "kind": "parameter", "start": start, "lr": lr, "s": END}
                    values = {"predicted": drift, "measured": drift, "stderr": 0.01}
                    rows.append(described | values)
    return pd.DataFrame(rows)


def runs_of(table: pd.DataFrame, folder: Path) -> Runs:
    run = RunFolder(folder)
    table.to_parquet(run.measures)
    return {"computed": run}


def where(table: pd.DataFrame, start: str, lr: float | None = None) -> pd.Series:
    return (table["kind"] == "mean") & (table["start"] == start) & (lr is None or table["lr"] == lr)


def test_claims_on_handmade_rows(tmp_path):
    claims = FIGURE.claims(runs_of(by_hand(), tmp_path))
    assert [within_bounds(claim) for claim in claims] == [True] * 10
    assert {claim.n for claim in claims} == {SEEDS}
    expected = [0.97, 0.999, 1, 0, 1.01 / 1.02, 0.5, 0.0001 / END, 1 / 6, 0.5, 1]
    assert [claim.measured for claim in claims] == pytest.approx(expected)
    assert claims[SIGMAS].high == claims[EXCESS].high == pytest.approx(4 / SEEDS**0.5)


# Of which start and η a number is changed, to what, and the claims that fail then.
BROKEN = {
    "half the drift": (GENERIC, EXTRAPOLATED, {"slope": 0.5, "flow_slope": 0.5}, {SLOPE, FLOW, SIGMAS}),
    "twice the drift": (GENERIC, EXTRAPOLATED, {"slope": 2.0, "flow_slope": 2.0}, {SLOPE, FLOW, SIGMAS}),
    "off by more than its error": (GENERIC, EXTRAPOLATED, {"flow_slope_stderr": 1e-4, "flow_slope": 1.001}, {SIGMAS}),
    "another direction": (GENERIC, EXTRAPOLATED, {"cosine": 0.9}, {COSINE}),
    "more at a smaller step": (GENERIC, min(RUNS), {"slope": 1.3}, {COLLAPSE}),
    "not of order η": (GENERIC, min(RUNS), {"flow_slope": 1.02}, {ORDER}),
    "drift at rest": (STATIONARY, EXTRAPOLATED, {"size": 0.1 * END}, {REST}),
    "drift at rest, seen": (STATIONARY, EXTRAPOLATED, {"excess": 5.0}, {EXCESS}),
    "steep ones as far at every η": (GENERIC, None, {"steep": STD**2 * EXAMPLES * 0.005}, {EXPONENT}),
    "steep ones twice as far": (GENERIC, min(RUNS), {"steep": STD**2 * EXAMPLES * 0.01}, {EXPONENT, LEVEL}),
}


@pytest.mark.parametrize(("start", "lr", "changes", "fail"), BROKEN.values(), ids=BROKEN)
def test_each_claim_can_fail(start, lr, changes, fail, tmp_path):
    table = by_hand()
    table.loc[where(table, start, lr), list(changes)] = list(changes.values())
    claims = FIGURE.claims(runs_of(table, tmp_path))
    assert {number for number, claim in enumerate(claims) if not within_bounds(claim)} == fail


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_exponent_of_the_root_mean_square(exponent, tmp_path):
    table = by_hand()
    table["steep"] = table["lr"] ** (2 * exponent)
    assert exponents(runs_of(table, tmp_path)) == pytest.approx([exponent] * SEEDS)


def test_steps_grow_as_the_step_size_falls():
    assert [steps_to_end(lr) for lr in (0.02, 0.01)] == [7500, 30_000]


# --- what is drawn ---


def test_draws(tmp_path):
    picture = FIGURE.draw(runs_of(by_hand(), tmp_path))
    picture.savefig(tmp_path / "picture.png")
    assert len(picture.axes) == 4
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_legend() for axis in picture.axes)
