"""Shared parts of the figures on Gatmiry et al.: label noise minimizes the trace of the Hessian of Σ_j φ(θ_j·x)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from lnsgd.data import SphereInputs
from lnsgd.figures.framework.results import Curves, measured
from lnsgd.figures.framework.style import BLUE, ORANGE
from lnsgd.measures.closed_forms import SumNetwork
from lnsgd.models import CubicPlusLinear
from lnsgd.runs.folder import RunFolder

PAPER = "Gatmiry et al."
NOISE, NO_NOISE = "label noise", "no noise"
COLORS = {NOISE: ORANGE, NO_NOISE: BLUE}
WITHOUT_NOISE = ("--model.label_noise.std", "0")

# Options of the paper's scale, with the paper's noise.
LONG = ("--model.label_noise.std", "0.03", "--model.noise_steps", "40000000", "--trainer.max_steps", "40200000")

# The weight tensor, and the names under which two matrices are measured: the neurons θ_j as rows, and the feature
# matrix ΘX, the pre-activations θ_j·x_i, with a row for each example.
WEIGHT = "layers.0.weight"
NEURONS, FEATURES = "net.layers.0.weight", "net.layers.0.output"

# A matrix counts as one of rank k if σ_{k+1}/σ_1 is at most this.
RANK_TOLERANCE = 0.01


def relative_singular_values(run: RunFolder, k: int, matrix: str = FEATURES) -> Curves:
    """Return σ_k/σ₁ of the feature matrix (or of the neurons) of every instance over training."""
    split = "train" if matrix == FEATURES else ""
    largest, other = (measured(run, f"singular_value_{number}", split, matrix) for number in (1, k))
    return Curves(largest.steps, other.values / largest.values, np.full_like(largest.values, np.nan))


def relative_trace(run: RunFolder) -> Curves:
    """Return the trace of the Hessian at the nearest point of zero loss over its minimum, over training."""
    trace, least = (measured(run, name, "train") for name in ("manifold_trace", "least_trace"))
    return Curves(trace.steps, trace.values / least.values, np.full_like(trace.values, np.nan))


def instances(data: SphereInputs, seeds: Sequence[int], nu: float, lr: float = 0.0) -> SumNetwork:
    """Return the closed forms of the instances that replicas with these seeds were trained on, in float64."""
    train = [data.variant(seed).splits["train"] for seed in seeds]
    inputs = torch.stack([one.inputs for one in train]).double()
    targets = torch.stack([one.labels[:, 0] for one in train]).double()
    return SumNetwork(inputs, targets, CubicPlusLinear(nu), lr)


def draw_quartiles(axis: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str, **line: Any) -> None:
    """Draw the median over instances as a line and their quartiles as a band, for values that span decades.

    Args:
        axis: The axes to draw on.
        x: (T,).
        values: (R, T); NaN (a diverged instance) is left out.
        color: Colour of line and band.
        label: Label in the legend.
        line: Further options of the line.
    """
    low, median, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=0)
    axis.plot(x, median, color=color, label=label, **line)
    axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
