"""With more points than dimensions the neurons fall into a few clusters: Gatmiry et al., Fig. 1b.

Clusters are counted by single linkage on the neurons θ_j, at the last step, without noise.
"""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import measured, weights
from lnsgd.figures.sharpness import (
    COLORS,
    NEURONS,
    NO_NOISE,
    NOISE,
    PAPER,
    WEIGHT,
    WITHOUT_NOISE,
    draw_quartiles,
)
from lnsgd.figures.style import plain
from lnsgd.measures import clusters
from lnsgd.run_folder import RunFolder

HIDDEN = 30  # as in the config
TOLERANCE = 0.03  # the callback's
SHOWN = 0  # the instance whose neurons are drawn


def counts(run: RunFolder) -> np.ndarray:
    """Number of clusters of every instance in the end, (R,)."""
    return measured(run, "cluster_count", layer=NEURONS).last


def _claims(runs: Runs) -> list[Claim]:
    how = f"clusters of {HIDDEN} neurons in the end, neighbours within {TOLERANCE:g}"
    return [
        judge(
            f"label noise: the neurons fall into a few clusters ({how}; a few: at most half as many as neurons)",
            source=f"{PAPER}, Fig. 1b",
            paper="a few clusters",
            measured=counts(runs[NOISE]).tolist(),
            high=HIDDEN / 2,
        ),
        judge(
            f"label noise: more than one cluster, as n > d ({how})",
            source=f"{PAPER}, Fig. 1b",
            paper="more than one",
            measured=(counts(runs[NOISE]) > 1).astype(float).tolist(),
            low=1.0,
        ),
        judge(
            f"no noise: the neurons stay apart ({how})",
            source=f"{PAPER}, Fig. 1b; control",
            paper="no clusters",
            measured=counts(runs[NO_NOISE]).tolist(),
            low=0.9 * HIDDEN,
        ),
    ]


def principal_components(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (d,) of points (n, d), and their first two principal directions (d, 2) with the largest entry positive."""
    centre = points.mean(axis=0)
    directions = np.linalg.svd(points - centre)[2][:2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return centre, (directions * np.sign(largest)).T


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 3.9), layout="constrained")
    before, clean, noisy, over_steps = picture.subplots(1, 4, width_ratios=[1, 1, 1, 1.15])
    points = {
        "(a) before training": (before, weights(runs[NOISE], WEIGHT, initial=True)[SHOWN], "black"),
        "(b) trained without noise": (clean, weights(runs[NO_NOISE], WEIGHT)[SHOWN], COLORS[NO_NOISE]),
        "(c) trained with label noise": (noisy, weights(runs[NOISE], WEIGHT)[SHOWN], COLORS[NOISE]),
    }
    for title, (axis, neurons, color) in points.items():
        _draw_neurons(axis, neurons, color)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="principal component 1")
    before.set_ylabel("principal component 2")
    for arm in (NO_NOISE, NOISE):
        found = measured(runs[arm], "cluster_count", layer=NEURONS)
        draw_quartiles(over_steps, found.steps[1:], found.values[:, 1:], COLORS[arm], arm, linewidth=1.8)
    over_steps.set(xlabel="steps", xscale="log", ylabel=f"clusters of {HIDDEN} neurons", ylim=(0, HIDDEN + 1))
    over_steps.set_title(f"(d) clusters, {len(counts(runs[NOISE]))} instances", fontsize=10)
    over_steps.legend(frameon=False, fontsize=9, loc="lower left")
    for axis in (before, clean, noisy, over_steps):
        plain(axis)
    return picture


def _draw_neurons(axis: Axes, neurons: np.ndarray, color: str) -> None:
    """The neurons on their own first two principal components; how many there are of each cluster beside it."""
    centre, directions = principal_components(neurons)
    places = (neurons - centre) @ directions
    axis.plot(*places.T, "o", color=color, markersize=6, alpha=0.5, markeredgewidth=0)
    belongs = clusters(torch.from_numpy(neurons), TOLERANCE).numpy()
    for cluster in np.unique(belongs):
        members = places[belongs == cluster]
        if len(members) > 1:
            axis.annotate(f"{len(members)}", members.mean(axis=0), (5, 5), textcoords="offset points", fontsize=9)
    axis.margins(0.12)
    axis.annotate(f"{belongs.max() + 1} clusters", (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=9)


_LONG = ("--model.noise_steps", "6000000", "--trainer.max_steps", "6200000")

FIGURE = Figure(
    name="sharpness-clusters",
    title="More points than dimensions: the neurons fall into a few clusters (Gatmiry et al., Fig. 1b)",
    config="figures/sharpness-clusters.yaml",
    scales={"ci": Scale(seeds=10), "paper": Scale(seeds=20, options=_LONG)},
    arms={NO_NOISE: [*WITHOUT_NOISE, "--trainer.max_steps", "200000"], NOISE: []},
    claims=_claims,
    draw=_draw,
)
