"""Label noise makes all neurons equal: Gatmiry et al., Fig. 1a.

There are as many inputs as dimensions. On the manifold of zero loss the trace of the Hessian is smallest where
θ_j·x_i = φ⁻¹(y_i/m) for every neuron j, so that the feature matrix ΘX (the pre-activations θ_j·x_i) and, where the
inputs span the space, the weight matrix Θ have rank one. φ is z³ + νz with ν = 0.1, and the cube alone (ν = 0) in one
arm. Numbers are read at the last step, without noise.
"""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.data import SphereInputs
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import measured, replicas, weights
from lnsgd.figures.framework.style import GREY, PURPLE, plain
from lnsgd.figures.sharpness.shared import (
    COLORS,
    FEATURES,
    LONG,
    NEURONS,
    NO_NOISE,
    NOISE,
    PAPER,
    RANK_TOLERANCE,
    WEIGHT,
    WITHOUT_NOISE,
    draw_quartiles,
    instances,
    relative_singular_values,
    relative_trace,
)
from lnsgd.figures.sharpness.statements import STATEMENTS
from lnsgd.runs.folder import RunFolder

CUBE = "label noise, cube"
CONFIG = "figures/sharpness-rank-one.yaml"
HIDDEN = read_setting(shipped_config(CONFIG), "model.net.widths")[1]

SECOND = "σ₂/σ₁ of the features"


def rank_one(run: RunFolder, matrix: str = FEATURES) -> np.ndarray:
    """Return for each instance whether its feature (or weight) matrix has rank one at the end, (R,)."""
    return relative_singular_values(run, 2, matrix).last <= RANK_TOLERANCE


def lemma_2(run: RunFolder) -> list[float]:
    """Return the exact Tr D²L over 2Σ_i ‖Dr(x_i)‖² at the end."""
    return (measured(run, "trace", "train").last / measured(run, "gradient_trace", "train").last).tolist()


def loss(run: RunFolder) -> list[float]:
    """Return Σ_i (r(x_i) − y_i)² of each instance at the end."""
    problem = instances(SphereInputs(), replicas(run)["seed"].tolist(), read_setting(run.config, "model.net.nu"))
    return problem.residuals(torch.from_numpy(weights(run, WEIGHT))).square().sum(1).tolist()


def _claims(runs: Runs) -> list[Claim]:
    noisy, clean, cube = runs[NOISE], runs[NO_NOISE], runs[CUBE]
    return [
        judge(
            "loss-zero",
            "label noise: loss Σ(r(x_i) − y_i)² at the end, after the last steps without noise",
            STATEMENTS["loss-zero"],
            paper="→ 0",
            measured=loss(noisy),
            high=1e-4,
        ),
        judge(
            "features-rank-one",
            f"label noise: features of rank one at the end (fraction of instances, {SECOND} ≤ {RANK_TOLERANCE:g})",
            STATEMENTS["rank-one"],
            paper="rank one",
            measured=rank_one(noisy),
            low=1.0,
            deterministic=True,
        ),
        judge(
            "weights-rank-one",
            "label noise: weight matrix of rank one at the end (fraction of instances, σ₂/σ₁ of Θ "
            f"≤ {RANK_TOLERANCE:g})",
            STATEMENTS["rank-one"],
            paper="rank one",
            measured=rank_one(noisy, NEURONS),
            low=1.0,
            deterministic=True,
        ),
        judge(
            "neurons-equal",
            "label noise: all neurons equal at the end (largest |θ_j·x_i − φ⁻¹(y_i/m)|)",
            STATEMENTS["neurons-equal"],
            paper=0.0,
            measured=measured(noisy, "distance", "train").last,
            high=0.01,
        ),
        judge(
            "trace-minimal",
            "label noise: trace of the Hessian (at zero loss) at the end over its minimum 2mΣφ′(φ⁻¹(y_i/m))²",
            STATEMENTS["trace-minimal"],
            paper=1.0,
            measured=relative_trace(noisy).last,
            low=0.999,
            high=1.01,
        ),
        judge(
            "trace-lemma",
            "label noise: trace of the Hessian over 2Σ‖Dr(x_i)‖² at the end (the factor 2 is missing in the statement)",
            STATEMENTS["trace-lemma"],
            paper="equal at zero loss",
            measured=lemma_2(noisy),
            low=0.999,
            high=1.001,
            deterministic=True,
        ),
        judge(
            "clean-rank",
            f"no noise: the features keep a higher rank ({SECOND} at the end)",
            CONTROL,
            source=f"{PAPER}, Fig. 1a",
            paper="not rank one",
            measured=relative_singular_values(clean, 2).last,
            low=0.1,
        ),
        judge(
            "clean-trace",
            "no noise: trace of the Hessian at the end over its minimum",
            CONTROL,
            source=f"{PAPER}, Fig. 1a",
            paper="above 1",
            measured=relative_trace(clean).last,
            low=1.1,
        ),
        judge(
            "cube-rank-one",
            f"cube (ν = 0), label noise: features of rank one (fraction of instances, {SECOND} ≤ {RANK_TOLERANCE:g})",
            STATEMENTS["cube"],
            paper="rank one",
            measured=rank_one(cube),
            low=1.0,
            deterministic=True,
            why="A neuron with θ_j·x_i = 0 fulfils the condition for a stationary point too, because φ′ = 0 there; 7 "
            "of 8 instances of higher rank end with such neurons",
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 3.9), layout="constrained")
    ranks, traces, neurons = picture.subplots(1, 3)
    for arm in (NO_NOISE, NOISE):
        second, trace = relative_singular_values(runs[arm], 2), relative_trace(runs[arm])
        for axis, curves in ((ranks, second), (traces, trace)):
            draw_quartiles(axis, curves.steps[1:], curves.values[:, 1:], COLORS[arm], arm, linewidth=1.8)
    _draw_each(ranks, runs[CUBE])
    ranks.axhline(RANK_TOLERANCE, color=GREY, linestyle=":", linewidth=1.2)
    ranks.annotate("rank one", (0.03, RANK_TOLERANCE), (0, -3), ("axes fraction", "data"), "offset points", va="top",
                   color=GREY, fontsize=9)  # fmt: skip
    ranks.set(ylabel="σ₂/σ₁", yscale="log", ylim=(1e-6, 1.5))
    ranks.set_title("(a) second singular value of the features", fontsize=10)
    traces.axhline(1, color="black", linestyle="--", linewidth=1.2, label="minimum, in closed form", zorder=1)
    traces.set(ylabel="trace / minimum", yscale="log", ylim=(0.9, 20))
    traces.set_title("(b) trace of the Hessian, taken to zero loss", fontsize=10)
    traces.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"], minor=False)
    traces.set_yticks([], minor=True)
    for axis in (ranks, traces):
        axis.set(xlabel="steps", xscale="log")
    _draw_neurons(neurons, runs)
    for axis, place in ((ranks, "lower left"), (traces, "upper right"), (neurons, "upper left")):
        axis.legend(frameon=False, fontsize=9, loc=place)
        plain(axis)
    return picture


def _draw_each(axis: Axes, run: RunFolder) -> None:
    """Draw a line for each instance, because some become rank one and others do not."""
    curves = relative_singular_values(run, 2)
    for number, values in enumerate(curves.values):
        label = "label noise, ν = 0: each instance" if number == 0 else None
        axis.plot(curves.steps[1:], values[1:], color=PURPLE, linewidth=0.9, alpha=0.8, label=label, zorder=1)


def _draw_neurons(axis: Axes, runs: Runs) -> None:
    largest = 0.0
    for arm, size in ((NO_NOISE, 3), (NOISE, 5)):
        seeds = replicas(runs[arm])["seed"].tolist()
        trained = weights(runs[arm], WEIGHT)
        problem = instances(SphereInputs(), seeds, read_setting(runs[arm].config, "model.net.nu"))
        shares = problem.shares(HIDDEN).numpy()
        found = trained @ problem.inputs.mT.numpy()
        expected = np.broadcast_to(shares[:, None], found.shape)
        axis.plot(expected.ravel(), found.ravel(), "o", color=COLORS[arm], markersize=size, alpha=0.6, label=arm,
                  markeredgewidth=0)  # fmt: skip
        largest = max(largest, float(shares.max()))
    line = np.array([0, 1.05 * largest])
    axis.plot(line, line, color="black", linestyle="--", linewidth=1.2, zorder=3)
    axis.set(xlabel="$\\varphi^{-1}(y_i/m)$", ylabel="$\\theta_j\\cdot x_i$")
    axis.set_title("(c) every neuron on every input, at the end", fontsize=10)


FIGURE = Figure(
    name="sharpness-rank-one",
    title="Label noise makes all neurons equal and the trace of the Hessian minimal (Gatmiry et al., Fig. 1a)",
    config=CONFIG,
    scales={"ci": Scale(seeds=10), "paper": Scale(seeds=20, options=LONG)},
    arms={
        NO_NOISE: [*WITHOUT_NOISE, "--trainer.max_steps", "50000"],
        NOISE: [],
        CUBE: ["--model.net.nu", "0"],
    },
    claims=_claims,
    draw=_draw,
)
