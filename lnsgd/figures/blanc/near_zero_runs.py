"""Runs with label noise near a network with zero error, for the figure `lnsgd.figures.blanc.near_zero`."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lnsgd.figures.blanc.escape_runs import STD, Start, instance, run_to, steps_to_end
from lnsgd.measures.closed_forms import projected_flow, retract

GENERIC, STATIONARY = "from a network that fits", "from a stationary point"

# Definitions 1 and 2: runs of η^−1.6 steps with noise of unit variance.
WINDOW_RATES, WINDOW_STD, WINDOW_RUNS, WINDOW_LOOKS = (1.6e-3, 8e-4, 4e-4), 1.0, 16, 8

# Fluctuations: at this η, after SETTLED relaxation times of the slowest direction.
SLOW_RATE, MANY_RUNS, SETTLED = 0.005, 1000, 5.0

# Two copies of each example.
COPIES_RATE, COPIES_RUNS = 0.02, 300

# The regularizer made explicit: full-batch descent on the mean loss + WEIGHT·R, against label noise, at one η.
EXPLICIT_RATE, WEIGHT, NOISE_RUNS, NOISE_LOOKS = 0.04, 0.1, 16, 40
NOISE, EXPLICIT = "label noise", "explicit regularizer"


def compute(seed: int) -> pd.DataFrame:
    """Compute all rows of one network: what was measured (``kind``), where, and its value."""
    start, rest = instance(seed)
    return pd.DataFrame(
        [
            *_window(GENERIC, start, seed),
            *_window(STATIONARY, rest, seed),
            *_fluctuations(start, seed),
            *_copies(start, seed),
            *_explicit(start, rest, seed),
        ]
    )


def _seeds(seed: int, count: int) -> range:
    return range(seed * count, (seed + 1) * count)


def _window(name: str, start: Start, seed: int) -> list[dict[str, Any]]:
    """Measure root mean square distances (the largest over the run, at its end) and the fall of R at its end."""
    rows = []
    for lr in WINDOW_RATES:
        stops = np.unique(np.geomspace(100, lr**-1.6, WINDOW_LOOKS).round().astype(int)).tolist()
        moved = run_to(start, lr, _seeds(seed, WINDOW_RUNS), stops, WINDOW_STD)
        distances = moved.square().sum(-1).mean(1).sqrt()
        fall = start.problem.regularizer(start.weights) - _regularizers(start, moved[-1]).mean()
        where = {"start": name, "lr": lr}
        rows.append({"kind": "distance", **where, "value": float(distances[-1])})
        rows.append({"kind": "largest_distance", **where, "value": float(distances.max())})
        rows.append({"kind": "fall", **where, "value": float(fall)})
    return rows


def _regularizers(start: Start, moved: Tensor) -> Tensor:
    """Return R of each run's weights, (R,), from their deviations (R, P)."""
    weights = (start.weights.flatten() + moved).view(len(moved), *start.weights.shape[1:])
    return torch.cat([start.problem.regularizer(one[None]) for one in weights])


def _fluctuations(start: Start, seed: int) -> list[dict[str, Any]]:
    """Measure variances in the steep directions over ηVar, correlations, and relaxation times in units of 1/η."""
    gammas, directions = eigendirections(start)
    halfway = 1 / (4 * SLOW_RATE * gammas)
    stops = np.unique([*(max(1, round(t)) for t in halfway.tolist()), round(SETTLED * float(halfway.max()))]).tolist()
    moved = run_to(start, SLOW_RATE, _seeds(seed, MANY_RUNS), stops) @ directions
    variances = moved.square().mean(1)
    correlations = torch.corrcoef(moved[-1].T)
    apart = correlations[~torch.eye(len(gammas), dtype=torch.bool)].square().mean() - 1 / MANY_RUNS
    rows: list[dict[str, Any]] = [{"kind": "correlation", "value": float(apart)}]
    for j, gamma in enumerate(gammas.tolist()):
        stop = max(1, round(float(halfway[j])))
        part = min(float(variances[stops.index(stop), j] / variances[-1, j]), 0.99)
        rows.append({"kind": "variance", "gamma": gamma, "value": float(variances[-1, j]) / (SLOW_RATE * STD**2)})
        rows.append({"kind": "time", "gamma": gamma, "value": -SLOW_RATE * stop / np.log1p(-part)})
    return rows


def eigendirections(start: Start) -> tuple[Tensor, Tensor]:
    """Return the positive eigenvalues γ_j of mean ∇h∇hᵀ, (n,), increasing, and their eigenvectors, (P, n)."""
    steep = start.steep
    gammas, mixed = torch.linalg.eigh(steep @ steep.T / len(steep))
    return gammas, steep.T @ mixed / (gammas * len(steep)).sqrt()


def _copies(start: Start, seed: int) -> list[dict[str, Any]]:
    """Compare two copies of each example with label noise: mean drift in flat directions, and steep variances."""
    found = []
    for copies in (False, True):
        seeds = _seeds(2 * seed + copies, COPIES_RUNS)
        moved = run_to(start, COPIES_RATE, seeds, [steps_to_end(COPIES_RATE)], copies=copies)[0]
        flat = start.flat_part(moved)
        found.append((flat.mean(0), (moved - flat).square().sum(1).mean()))
    (drift, steep), (other_drift, other_steep) = found
    return [
        {"kind": "copies_drift", "value": float(other_drift @ drift / (drift @ drift))},
        {"kind": "copies_steep", "value": float(other_steep / steep)},
    ]


def _explicit(start: Start, rest: Start, seed: int) -> list[dict[str, Any]]:
    """Count steps until half of the excess of R over that of the stationary point is gone, both ways.

    R is taken at the nearest point of zero error, so that a larger error does not count as a smaller R.
    """
    whole, least = (float(one.problem.regularizer(one.weights)) for one in (start, rest))
    times = np.geomspace(1e-3, 100, 200)
    flow = projected_flow(start.problem, start.weights, times.tolist())
    excess = np.array([(float(start.problem.regularizer(one)) - least) / (whole - least) for one in flow])
    until = 1.5 * float(times[np.argmax(excess < 0.5)])
    stops = np.linspace(0, until / (EXPLICIT_RATE * STD) ** 2, NOISE_LOOKS + 1)[1:].round().astype(int).tolist()
    moved = run_to(start, EXPLICIT_RATE, _seeds(seed, NOISE_RUNS), stops)
    noisy = {0: 1.0} | {stop: _excess(start, one, whole, least) for stop, one in zip(stops, moved)}
    explicit, weights = {0: 1.0}, start.weights
    problem = start.problem
    for step in range(1, stops[-1] + 1):
        loss = 2 * (problem.residuals(weights)[..., None, None] * problem.jacobian(weights)).mean(1)
        weights = weights - EXPLICIT_RATE * (loss + WEIGHT * problem.regularizer_gradient(weights))
        explicit[step] = _excess(start, (weights - start.weights).flatten(1), whole, least)
        if explicit[step] < 0.25:
            break
    ways = {NOISE: noisy, EXPLICIT: explicit}
    rows = [
        {"kind": "excess", "start": way, "step": step, "value": value}
        for way, curve in ways.items()
        for step, value in curve.items()
    ]
    halves = {way: steps_to_half(curve) for way, curve in ways.items()}
    return [*rows, {"kind": "speedup", "value": halves[NOISE] / halves[EXPLICIT]}]


def _excess(start: Start, moved: Tensor, whole: float, least: float) -> float:
    weights = start.weights + moved.view(len(moved), *start.weights.shape[1:])
    found = [float(start.problem.regularizer(retract(start.problem, one[None]))) for one in weights]
    return (float(np.mean(found)) - least) / (whole - least)


def steps_to_half(curve: dict[int, float]) -> float:
    """Return the step at which a curve first falls to one half, interpolated linearly; NaN if it does not."""
    steps, values = np.array(list(curve)), np.array(list(curve.values()))
    below = np.flatnonzero(values <= 0.5)
    if not len(below):
        return float("nan")
    i = below[0]
    return float(np.interp(0.5, values[[i, i - 1]], steps[[i, i - 1]])) if i else float(steps[0])
