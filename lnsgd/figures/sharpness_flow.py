"""Label-noise descent against the flow that it is said to follow: beyond the pictures of Gatmiry et al.

At zero loss full-batch descent on Σ_i (r(x_i) − y_i − z_i)² with noise z_i of variance σ² drifts along dθ/ds = −P_T ∇R in
the time s = η²σ²·steps, R = Σ_i ‖Dr(x_i)‖² half the trace of the Hessian (`lnsgd.measures.projected_flow`). So runs at
different η and σ fall on one curve over s. The flow starts where descent without noise from the same weights ends. Small
differences of neurons fall like exp(−κs) and R like exp(−2κs), with κ in closed form (`lnsgd.measures.SumNetwork.rate`);
Theorem 3 is that the rate is at least 2λ_min(XXᵀ)·min φ′φ‴, here 12νλ_min.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.data import SphereInputs
from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import replicas, weights
from lnsgd.figures.sharpness import (
    NO_NOISE,
    PAPER,
    WEIGHT,
    WITHOUT_NOISE,
    instances,
    relative_singular_values,
    relative_trace,
)
from lnsgd.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, plain
from lnsgd.measures import SumNetwork, projected_flow

# η and σ of the arms, the paper's last.
ARMS = {
    "η = 0.01, σ = 0.4": (0.01, 0.4),
    "η = 0.02, σ = 0.2": (0.02, 0.2),
    "η = 0.05, σ = 0.2": (0.05, 0.2),
    "η = 0.05, σ = 0.03": (0.05, 0.03),
}
COLORS = dict(zip(ARMS, (GREEN, BLUE, ORANGE, PURPLE)))
RATE_ARMS = tuple(ARMS)[:3]  # at scale ci the last one does not run long enough

# As in the config.
NU, NEURONS, EXAMPLES = 0.1, 10, 3

# Before this s the loss is still falling; below this σ₂/σ₁ a small difference in s is a large one in σ₂/σ₁.
FIRST, SMALL = 0.1, 0.05

# Where exponential rates are read off σ₂/σ₁ and, squared, off R.
LINEAR = (1e-4, 1e-2)

SHOWN = 0  # the instance that is drawn


class Path(NamedTuple):
    """σ₂/σ₁ of the features and trace over its minimum of every instance, (R, T), at times s (T,)."""

    s: np.ndarray
    ratio: np.ndarray
    trace: np.ndarray


def descent(runs: Runs, arm: str) -> Path:
    """What a run with label noise did."""
    lr, std = ARMS[arm]
    ratio, trace = relative_singular_values(runs[arm], 2), relative_trace(runs[arm])
    return Path(ratio.steps * lr**2 * std**2, ratio.values, trace.values)


def problem(runs: Runs, lr: float = 0.0) -> SumNetwork:
    """The instances of the runs."""
    return instances(SphereInputs(), replicas(runs[NO_NOISE])["seed"].tolist(), NU, lr)


def flow(runs: Runs, s: np.ndarray, lr: float = 0.0) -> Path:
    """The flow at given times; with the drift at a finite η where one is given."""
    network = problem(runs, lr)
    start = torch.from_numpy(weights(runs[NO_NOISE], WEIGHT))
    found = projected_flow(network, start, s.tolist())
    features = network.activation(found @ network.inputs.mT)
    values = torch.linalg.svdvals(features)
    trace = torch.stack([2 * network.squared_gradients(one) for one in found]) / network.least_trace(NEURONS)
    return Path(s, (values[..., 1] / values[..., 0]).numpy().T, trace.numpy().T)


def deviations(found: np.ndarray, expected: np.ndarray, counted: np.ndarray) -> list[float]:
    """Mean of |found/expected − 1| over the times that count, of each instance; all arrays are (R, T)."""
    apart = np.where(counted, np.abs(found / expected - 1), 0)
    return (apart.sum(axis=1) / counted.sum(axis=1)).tolist()


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else float("nan")


def rates(path: Path) -> np.ndarray:
    """Rate at which σ₂/σ₁ of each instance falls where it is in `LINEAR`, (R,); NaN with fewer than two points there."""
    inside = (path.ratio >= LINEAR[0]) & (path.ratio <= LINEAR[1])
    return np.array([-_slope(path.s[i], np.log(ratio[i])) for i, ratio in zip(inside, path.ratio)])
