"""Label noise makes all neurons equal: Gatmiry et al., Fig. 1a.

There are as many inputs as dimensions. On the manifold of zero loss the trace of the Hessian is smallest where
θ_j·x_i = φ⁻¹(y_i/m) for every neuron j, so that the features φ(θ_j·x_i) and the neurons have rank one. φ is
z³ + νz with ν = 0.1, and in one arm the cube alone, ν = 0. Numbers are read at the last step, without noise.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.data import SphereInputs
from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import measured, replicas, weights
from lnsgd.figures.sharpness import (
    COLORS,
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
from lnsgd.figures.style import GREY, PURPLE, plain
from lnsgd.run_folder import RunFolder

CUBE = "label noise, cube"
NU = {NOISE: 0.1, NO_NOISE: 0.1, CUBE: 0.0}
NEURONS = 10  # as in the config

SECOND = "σ₂/σ₁ of the features"


def rank_one(run: RunFolder) -> list[float]:
    """1 for each instance whose features have rank one in the end, else 0."""
    return (relative_singular_values(run, 2).last <= RANK_TOLERANCE).astype(float).tolist()


def lemma_2(run: RunFolder) -> list[float]:
    """Tr D²L, exact, over 2Σ_i ‖Dr(x_i)‖² in the end."""
    return (measured(run, "trace", "train").last / measured(run, "gradient_trace", "train").last).tolist()


def _claims(runs: Runs) -> list[Claim]:
    noisy, clean, cube = runs[NOISE], runs[NO_NOISE], runs[CUBE]
    return [
        judge(
            f"label noise: features of rank one in the end (fraction of instances, {SECOND} ≤ {RANK_TOLERANCE:g})",
            source=f"{PAPER}, Fig. 1a",
            paper="rank one",
            measured=rank_one(noisy),
            low=1.0,
        ),
        judge(
            "label noise: all neurons equal in the end (largest |θ_j·x_i − φ⁻¹(y_i/m)|)",
            source=f"{PAPER}, Theorem 3",
            paper=0.0,
            measured=measured(noisy, "distance", "train").last.tolist(),
            high=0.01,
        ),
        judge(
            "label noise: trace of the Hessian (at zero loss) in the end over its minimum 2mΣφ′(φ⁻¹(y_i/m))²",
            source=f"{PAPER}, Theorem 3",
            paper=1.0,
            measured=relative_trace(noisy).last.tolist(),
            low=0.999,
            high=1.01,
        ),
        judge(
            "label noise: trace of the Hessian over 2Σ‖Dr(x_i)‖² in the end (the factor 2 is missing in the statement)",
            source=f"{PAPER}, Lemma 2",
            paper="equal at zero loss",
            measured=lemma_2(noisy),
            low=0.999,
            high=1.001,
        ),
        judge(
            f"no noise: the features keep a higher rank ({SECOND} in the end)",
            source=f"{PAPER}, Fig. 1a; control",
            paper="not rank one",
            measured=relative_singular_values(clean, 2).last.tolist(),
            low=0.1,
        ),
        judge(
            "no noise: trace of the Hessian in the end over its minimum",
            source=f"{PAPER}, Fig. 1a; control",
            paper="above 1",
            measured=relative_trace(clean).last.tolist(),
            low=1.1,
        ),
        judge(
            f"cube (ν = 0), label noise: features of rank one (fraction of instances, {SECOND} ≤ {RANK_TOLERANCE:g})",
            source=f"{PAPER}, result on the cube",
            paper="rank one",
            measured=rank_one(cube),
            low=1.0,
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
    """A line for each instance: some become rank one, others do not."""
    curves = relative_singular_values(run, 2)
    for number, values in enumerate(curves.values):
        label = "label noise, ν = 0: each instance" if number == 0 else None
        axis.plot(curves.steps[1:], values[1:], color=PURPLE, linewidth=0.9, alpha=0.8, label=label, zorder=1)


def _draw_neurons(axis: Axes, runs: Runs) -> None:
    largest = 0.0
    for arm, size in ((NO_NOISE, 3), (NOISE, 5)):
        seeds = replicas(runs[arm])["seed"].tolist()
        trained = weights(runs[arm], WEIGHT)
        problem = instances(SphereInputs(), seeds, NU[arm])
        shares = problem.shares(NEURONS).numpy()
        found = trained @ problem.inputs.mT.numpy()
        expected = np.broadcast_to(shares[:, None], found.shape)
        axis.plot(expected.ravel(), found.ravel(), "o", color=COLORS[arm], markersize=size, alpha=0.6, label=arm,
                  markeredgewidth=0)  # fmt: skip
        largest = max(largest, float(shares.max()))
    line = np.array([0, 1.05 * largest])
    axis.plot(line, line, color="black", linestyle="--", linewidth=1.2, zorder=3)
    axis.set(xlabel="$\\varphi^{-1}(y_i/m)$", ylabel="$\\theta_j\\cdot x_i$")
    axis.set_title("(c) every neuron on every input, in the end", fontsize=10)


_LONG = ("--model.label_noise.std", "0.03", "--model.noise_steps", "40000000", "--trainer.max_steps", "40200000")

FIGURE = Figure(
    name="sharpness-rank-one",
    title="Label noise makes all neurons equal and the trace of the Hessian minimal (Gatmiry et al., Fig. 1a)",
    config="figures/sharpness-rank-one.yaml",
    scales={"ci": Scale(seeds=10), "paper": Scale(seeds=20, options=_LONG)},
    arms={
        NO_NOISE: [*WITHOUT_NOISE, "--trainer.max_steps", "50000"],
        NOISE: [],
        CUBE: ["--model.net.nu", "0"],
    },
    claims=_claims,
    draw=_draw,
)
