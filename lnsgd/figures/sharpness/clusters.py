"""With more points than dimensions the neurons form clusters: Gatmiry et al., Fig. 1b.

A neuron is represented by its feature vector, its pre-activations θ_j·x_i on all examples, a row of ΘX. Clusters are
counted by single linkage on these vectors, at the last step, without noise. The loss is the mean over the examples.
"""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.data import SphereInputs
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import measured, replicas, weights_over_training
from lnsgd.figures.framework.style import plain
from lnsgd.figures.sharpness.shared import (
    COLORS,
    FEATURES,
    NO_NOISE,
    NOISE,
    PAPER,
    RANK_TOLERANCE,
    WEIGHT,
    WITHOUT_NOISE,
    draw_quartiles,
)
from lnsgd.figures.sharpness.statements import STATEMENTS
from lnsgd.measures import clusters
from lnsgd.runs.folder import RunFolder

CONFIG = "figures/sharpness-clusters.yaml"
HIDDEN = read_setting(shipped_config(CONFIG), "model.net.widths")[1]
HIGH_RANK = read_setting(shipped_config(CONFIG), "data.dimension") // 2
SHOWN = 0  # the instance whose neurons are drawn


def tolerance(run: RunFolder) -> float:
    """Return the largest distance of neighbours in the clusters that a run counted."""
    return float(read_setting(run.config, "trainer.callbacks.ClusterCount.tolerance"))


def counts(run: RunFolder) -> np.ndarray:
    """Return the number of clusters of every instance at the end, (R,)."""
    return measured(run, "cluster_count", "train", FEATURES).last


def feature_ranks(run: RunFolder) -> np.ndarray:
    """Return the rank of the feature matrix of every instance at the end, (R,)."""
    found = [feature_vectors(run, instance)[-1] for instance in range(len(replicas(run)))]
    values = np.linalg.svd(np.stack(found), compute_uv=False)
    return (values > RANK_TOLERANCE * values[:, :1]).sum(axis=1)


def approach(run: RunFolder, instance: int) -> tuple[float, float]:
    """Return how much neurons of one instance approach each other: the closest pairs, and the others.

    The distance of a pair is that of its feature vectors. The closest pairs are the tenth with the smallest distances
    at the first checkpoint, by which the examples are fitted. Each number is the median over pairs of the distance at
    the end, over that at the first checkpoint. Both are NaN if no checkpoint before the end was kept, as at scale ci.
    """
    path = feature_vectors(run, instance)
    if len(path) < 3:
        return float("nan"), float("nan")
    rows, columns = np.triu_indices(path.shape[1], 1)
    before, after = (np.linalg.norm(path[k][rows] - path[k][columns], axis=1) for k in (1, -1))
    close = before <= np.quantile(before, 0.1)
    ratio = after / before
    return float(np.median(ratio[close])), float(np.median(ratio[~close]))


def _claims(runs: Runs) -> list[Claim]:
    within = tolerance(runs[NOISE])
    how = f"clusters of the feature vectors of {HIDDEN} neurons at the end, neighbours within {within:g}"
    return [
        judge(
            "small-set",
            f"label noise: the neurons collapse into a small set ({how}; small: at most half as many as neurons)",
            STATEMENTS["small-set"],
            paper="a small set of vectors",
            measured=counts(runs[NOISE]),
            high=HIDDEN / 2,
        ),
        judge(
            "more-than-one",
            f"label noise: more than one cluster, as n > d ({how})",
            STATEMENTS["clusters"],
            paper="clusters instead of a single vector",
            measured=counts(runs[NOISE]) > 1,
            low=1.0,
            deterministic=True,
        ),
        *_judge_pairs(runs[NOISE]),
        judge(
            "high-rank",
            f"label noise: the feature matrix has a high rank at the end (at least {HIGH_RANK}, half of the largest; "
            f"singular values above {RANK_TOLERANCE:g} of the largest)",
            STATEMENTS["high-rank"],
            paper="high rank",
            measured=feature_ranks(runs[NOISE]),
            low=HIGH_RANK,
        ),
        judge(
            "clean-apart",
            f"no noise: the neurons stay apart ({how})",
            CONTROL,
            source=f"{PAPER}, Fig. 1b",
            paper="no clusters",
            measured=counts(runs[NO_NOISE]),
            low=0.9 * HIDDEN,
        ),
    ]


def _judge_pairs(run: RunFolder) -> list[Claim]:
    close, far = np.array([approach(run, instance) for instance in range(len(replicas(run)))]).T
    return [
        judge(
            "close-pairs",
            "label noise: neurons that are close converge (median distance at the end over that at the first "
            "checkpoint, the closest tenth of the pairs)",
            STATEMENTS["attraction"],
            paper="converge",
            measured=close,
            high=0.5,
        ),
        judge(
            "closer-pairs",
            "label noise: especially when they are close (the same ratio, the closest tenth over the others)",
            STATEMENTS["attraction"],
            paper="especially when close",
            measured=close / far,
            high=1.0,
        ),
    ]


def feature_vectors(run: RunFolder, instance: int) -> np.ndarray:
    """Return the feature vectors of the neurons of one instance over training, (T, m, n)."""
    dimension, examples = (read_setting(run.config, f"data.{name}") for name in ("dimension", "examples"))
    seed = int(replicas(run)["seed"].iloc[instance])
    inputs = SphereInputs(dimension, examples).variant(seed).splits["train"].inputs.double().numpy()
    return weights_over_training(run, WEIGHT)[1][:, instance] @ inputs.T


def principal_components(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre (d,) of points (n, d) and two principal directions (d, 2) with a positive largest entry."""
    centre = points.mean(axis=0)
    directions = np.linalg.svd(points - centre)[2][:2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return centre, (directions * np.sign(largest)).T


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 3.9), layout="constrained")
    clean, noisy, over_steps = picture.subplots(1, 3)
    for axis, arm, title in ((clean, NO_NOISE, "(a) without noise"), (noisy, NOISE, "(b) with label noise")):
        _draw_neurons(axis, feature_vectors(runs[arm], SHOWN), tolerance(runs[arm]), COLORS[arm])
        axis.set_title(f"{title}: {HIDDEN} neurons of one instance", fontsize=10)
        axis.set(xlabel="principal component 1 of the feature vectors")
    clean.set_ylabel("principal component 2")
    for arm in (NOISE, NO_NOISE):  # the line without noise, which is shorter, lies above the other
        found = measured(runs[arm], "cluster_count", "train", FEATURES)
        draw_quartiles(over_steps, found.steps[1:], found.values[:, 1:], COLORS[arm], arm, linewidth=1.8)
    over_steps.set(xlabel="steps", xscale="log", ylabel=f"clusters of {HIDDEN} neurons", ylim=(0, HIDDEN + 1))
    over_steps.set_title(f"(c) clusters, {len(counts(runs[NOISE]))} instances", fontsize=10)
    over_steps.legend(frameon=False, fontsize=9, loc="lower left")
    for axis in (clean, noisy, over_steps):
        plain(axis)
    return picture


def _draw_neurons(axis: Axes, over_training: np.ndarray, tolerance: float, color: str) -> None:
    """Draw how the neurons move in the plane of the final principal components, with the size of each cluster."""
    centre, directions = principal_components(over_training[-1])
    places = (over_training - centre) @ directions
    for path in places.swapaxes(0, 1):
        axis.plot(*path.T, "-", color="black", linewidth=0.6, alpha=0.35)
    axis.plot(*places[0].T, "o", color="white", markersize=4, markeredgecolor="black", markeredgewidth=0.6)
    axis.plot(*places[-1].T, "o", color=color, markersize=7, alpha=0.6, markeredgewidth=0)
    belongs = clusters(torch.from_numpy(over_training[-1]), tolerance).numpy()
    for cluster in np.unique(belongs):
        members = places[-1][belongs == cluster]
        if len(members) > 1:
            axis.annotate(f"{len(members)}", members.mean(axis=0), (5, 5), textcoords="offset points", fontsize=9)
    axis.margins(0.12)
    axis.annotate(f"{belongs.max() + 1} clusters", (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=9)


# Three times the step and the noise, which is 81 times as fast.
_FAST = ("--model.optimizer.lr", "0.3", "--model.label_noise.std", "0.6", "--model.noise_steps", "400000")

FIGURE = Figure(
    name="sharpness-clusters",
    title="More points than dimensions: the neurons fall into a few clusters (Gatmiry et al., Fig. 1b)",
    config=CONFIG,
    scales={
        "ci": Scale(
            seeds=5,
            options=[*_FAST, "--trainer.max_steps", "450000"],
            arms={NO_NOISE: ["--trainer.max_steps", "50000"]},
        ),
        "paper": Scale(seeds=10, arms={NO_NOISE: ["--trainer.max_steps", "2000000"]}),
    },
    arms={NO_NOISE: [*WITHOUT_NOISE], NOISE: []},
    claims=_claims,
    draw=_draw,
)
