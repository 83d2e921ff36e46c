"""With label noise all one-dimensional networks become the simplest interpolation: Blanc et al., Fig. 2 and 3.

ReLU networks 1-H-1 with a linear and a constant unit fit twelve points of a zigzag, four on each of its three pieces.
Without noise each run keeps its own kinks between the points. With noise all runs approach the least
R = mean_i ‖∇h(x_i)‖² among the functions through the points: linear where neighbouring points are on a line, with the
one change between concave and convex that the points require. Only the turns between the fourth and the fifth point and
between the eighth and the ninth remain free, within small triangles.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lnsgd.data import Points1D
from lnsgd.data.points_1d import SLOPE, TURNS
from lnsgd.figures.blanc.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, interval_of_fraction, judge, slug
from lnsgd.figures.framework.configs import read_setting
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import Curves, measured, replicas, weights
from lnsgd.figures.framework.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    draw_band,
    draw_geometric_band,
    plain,
    seeds_title,
)
from lnsgd.measures.closed_forms import minimal_regularizer
from lnsgd.measures.geometry import curve_length
from lnsgd.runs.folder import RunFolder

CLEAN, NOISY, KEPT = "no noise", "label noise", "noise kept"
OUTPUT_ONLY, HIDDEN_ONLY = "only the output layer", "only the hidden layer"
COLORS = {CLEAN: BLUE, NOISY: ORANGE, KEPT: PURPLE, OUTPUT_ONLY: GREEN, HIDDEN_ONLY: GREY}
LABELS = {
    CLEAN: "no noise",
    NOISY: "label noise",
    KEPT: "noise drawn once and kept",
    OUTPUT_ONLY: "label noise, only the output layer trained",
    HIDDEN_ONLY: "label noise, only the hidden layer trained",
}

# The paper shows ten runs with noise, all of them simple, and five without, none of which is. A fraction of runs agrees
# with the paper if it is one that these numbers leave possible.
AS_IN_ALL_OF_TEN = interval_of_fraction(10, 10)[0]
AS_IN_NONE_OF_FIVE = interval_of_fraction(0, 5)[1]

# The number of linear pieces of the zigzag.
PIECES = len(TURNS) + 1

# The number of convexity changes that the points require.
FEWEST_CHANGES = 1

# At this loss a curve visibly goes through the points, which span 4/3.
FITS = 1e-3

# The largest distance from a chord, in units of y, at which a curve visibly follows it.
LINEAR = 0.02

# The relative error of the length that the tolerances of convexity changes and of LINEAR allow.
LENGTH_SLACK = 0.01


def points(seed: int = 0, label_std: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs and labels (12,) that a replica is trained on."""
    data = Points1D(seed=seed, label_std=label_std)
    data.setup()
    train = data.splits["train"]
    return train.inputs[:, 0].double().numpy(), train.labels[:, 0].double().numpy()


def simplest_lengths() -> tuple[float, float]:
    """Return the least and largest length of a simplest function: the connected points, and the zigzag itself."""
    return curve_length(*points()), 2 * float(np.hypot(1, SLOPE))


def curves(run: RunFolder, x: np.ndarray) -> np.ndarray:
    """Evaluate the final functions of all replicas, (R, T), at inputs (T,)."""
    of = {name: weights(run, name) for name in ("layers.0.weight", "layers.0.bias", "layers.1.weight")}
    z = of["layers.0.weight"] * x + of["layers.0.bias"][:, :, None]
    bent = (of["layers.1.weight"] @ np.maximum(z, 0))[:, 0]
    return bent + weights(run, "skip.weight")[:, 0] * x + weights(run, "layers.1.bias")


def distance_from_mean(values: np.ndarray) -> np.ndarray:
    """Return the largest distance of each of R curves (R, T) from their mean, (R,)."""
    return np.abs(values - values.mean(axis=0)).max(axis=1)


def part_off(run: RunFolder) -> np.ndarray:
    """Return the part of [−1, 1] where each replica is off the zigzag by more than `LINEAR`, (R,)."""
    data = Points1D(test_size=2001)
    data.setup()
    grid = data.splits["test"]
    off = np.abs(curves(run, grid.inputs[:, 0].double().numpy()) - grid.labels[:, 0].double().numpy())
    return (off > LINEAR).mean(axis=1)


def relative_regularizer(run: RunFolder) -> Curves:
    """Return R over its minimum among functions through the replica's own labels."""
    found = measured(run, "implicit_regularizer", "train")
    label_std = read_setting(run.config, "data.label_std")
    least = [minimal_regularizer(*points(int(seed), label_std)) for seed in replicas(run)["seed"]]
    return found._replace(values=found.values / np.array(least)[:, None])


def is_simplest(run: RunFolder) -> np.ndarray:
    """Tell which replicas are simplest at the end, (R,): fewest convexity changes, and linear where the points are."""
    changes, deviation = measured(run, "convexity_changes"), measured(run, "chord_deviation", "train")
    return (changes.last == FEWEST_CHANGES) & (deviation.last <= LINEAR)


def first_below(found: Curves, level: np.ndarray | float) -> np.ndarray:
    """Return the first measured step at which each replica's value is at most its level, (R,), or NaN."""
    later = found.steps > 0
    below = found.values[:, later] <= np.reshape(level, (-1, 1))
    return np.where(below.any(axis=1), found.steps[later][below.argmax(axis=1)], np.nan)


def _claims(runs: Runs) -> list[Claim]:
    return [
        *_judge_fits(runs),
        *_judge_shapes(runs),
        *_judge_lengths(runs),
        *_judge_regularizer(runs),
        *_judge_controls(runs),
    ]


def _end(runs: Runs) -> str:
    return f"in the end, step {measured(runs[CLEAN], 'curve_length').steps[-1]:,}"


def _judge_fits(runs: Runs) -> list[Claim]:
    return [
        judge(
            f"{slug(LABELS[arm])}-fits",
            f"{LABELS[arm]}: runs fit (mean squared error, {_end(runs)})",
            STATEMENTS["relu-fits"],
            paper="all fit",
            measured=measured(runs[arm], "loss", "train").last,
            high=FITS,
        )
        for arm in (CLEAN, NOISY)
    ]


def _judge_shapes(runs: Runs) -> list[Claim]:
    x = np.linspace(-1, 1, 1001)
    noisy, n = runs[NOISY], len(points()[0])
    return [
        judge(
            "fewest-changes",
            f"label noise: fewest convexity changes, {FEWEST_CHANGES} (fraction of runs, {_end(runs)})",
            STATEMENTS["relu-convexity"],
            paper="all",
            measured=measured(noisy, "convexity_changes").last == FEWEST_CHANGES,
            low=AS_IN_ALL_OF_TEN,
        ),
        judge(
            "linear",
            f"label noise: linear over three points on a line (largest distance from the chord, {_end(runs)})",
            STATEMENTS["relu-linear"],
            paper="linear",
            measured=measured(noisy, "chord_deviation", "train").last,
            high=LINEAR,
        ),
        judge(
            "test-error",
            f"label noise: part of [−1, 1] where the curve is off the zigzag by more than {LINEAR} "
            f"(k/n = {PIECES}/{n}, {_end(runs)})",
            STATEMENTS["relu-test-error"],
            paper=f"O({PIECES}/{n})",
            measured=part_off(noisy),
            high=PIECES / n,
        ),
        judge(
            "clean-not-simple",
            f"no noise: none is that simple (fraction of runs with both, {_end(runs)})",
            STATEMENTS["relu-not-simple"],
            paper="none",
            measured=is_simplest(runs[CLEAN]),
            high=AS_IN_NONE_OF_FIVE,
        ),
        judge(
            "same",
            f"label noise: all curves are one (largest distance of a curve from their mean, {_end(runs)})",
            STATEMENTS["relu-independent"],
            paper="the same",
            measured=distance_from_mean(curves(noisy, x)),
            high=0.05,
        ),
        judge(
            "clean-differ",
            f"no noise: curves differ (largest distance of a curve from their mean, {_end(runs)})",
            STATEMENTS["relu-vary"],
            paper="different",
            measured=distance_from_mean(curves(runs[CLEAN], x)),
            low=0.1,
        ),
    ]


def _judge_lengths(runs: Runs) -> list[Claim]:
    noisy = measured(runs[NOISY], "curve_length")
    shortest, longest = simplest_lengths()
    loss = measured(runs[NOISY], "loss", "train")
    fitted = first_below(loss, loss.values[:, 0] / 100)
    short = first_below(noisy, longest * (1 + LENGTH_SLACK))
    return [
        judge(
            "shorter",
            f"curve length without noise over that with noise (same seed, {_end(runs)})",
            STATEMENTS["relu-shorter"],
            paper=5.2 / 4.3,
            measured=measured(runs[CLEAN], "curve_length").last / noisy.last,
            low=1.1,
        ),
        judge(
            "length",
            f"label noise: curve length (simplest functions have {shortest:.2f} to {longest:.2f}; {_end(runs)})",
            STATEMENTS["relu-shorter"],
            paper="simplest",
            measured=noisy.last,
            low=shortest * (1 - LENGTH_SLACK),
            high=longest * (1 + LENGTH_SLACK),
        ),
        judge(
            "later",
            "label noise: loss falls first, length much later (orders of magnitude between the steps at which a "
            "hundredth of the loss is left and at which the length is one of a simplest function)",
            STATEMENTS["relu-later"],
            paper="much later",
            # A ratio of two times differs between seeds by orders of magnitude, so that its mean would be its largest.
            measured=np.log10(short / fitted),
            low=1.0,
        ),
    ]


def _judge_regularizer(runs: Runs) -> list[Claim]:
    return [
        judge(
            "noisy-regularizer",
            f"label noise: R over its minimum among functions through the points ({_end(runs)})",
            CONTROL,
            source="Blanc et al., 1-D ReLU; the minimum is derived",
            paper=1.0,
            measured=relative_regularizer(runs[NOISY]).last,
            low=0.99,
            high=1.1,
        ),
        judge(
            "clean-regularizer",
            f"no noise: R over the same minimum ({_end(runs)})",
            CONTROL,
            source="Blanc et al., 1-D ReLU; the minimum is derived",
            paper="far above",
            measured=relative_regularizer(runs[CLEAN]).last,
            low=10.0,
        ),
    ]


def _judge_controls(runs: Runs) -> list[Claim]:
    one_layer = [
        judge(
            f"{slug(arm)}",
            f"control: noise with {arm} trained has no effect (fraction of runs that are simplest, {_end(runs)})",
            STATEMENTS["relu-one-layer"],
            paper="none",
            measured=is_simplest(runs[arm]),
            high=AS_IN_NONE_OF_FIVE,
        )
        for arm in (OUTPUT_ONLY, HIDDEN_ONLY)
    ]
    found = measured(runs[KEPT], "implicit_regularizer", "train")
    kept = judge(
        "control-kept",
        f"control: noise drawn once and kept does not lower R (R {_end(runs)}, over R at the start)",
        CONTROL,
        source="chosen",
        paper="no effect",
        measured=found.last / found.values[:, 0],
        low=0.5,
    )
    return [*one_layer, kept]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 6.6), layout="constrained")
    above, below = picture.subfigures(2, 1)  # type: ignore[misc]  # an array of two
    for axis, arms in zip(above.subplots(1, 3, sharey=True), ((CLEAN,), (NOISY,), (OUTPUT_ONLY, HIDDEN_ONLY))):
        _draw_curves(axis, {arm: runs[arm] for arm in arms})
    number = len(replicas(runs[CLEAN]))
    titles = (f"No noise ({number} runs)", f"Label noise ({number} runs)", "Label noise, one layer trained")
    for axis, title in zip(above.axes, titles):
        axis.set(title=title)
    above.axes[0].set(ylabel="h(x)")
    loss, length, changes, regularizer = below.subplots(1, 4)
    _draw_over_steps(loss, {arm: measured(runs[arm], "loss", "train") for arm in (CLEAN, NOISY)}, geometric=True)
    # With kept noise the labels are different, and so is the simplest function.
    same_points = {arm: run for arm, run in runs.items() if arm != KEPT}
    _draw_over_steps(length, {arm: measured(run, "curve_length") for arm, run in same_points.items()})
    _draw_over_steps(changes, {arm: measured(run, "convexity_changes") for arm, run in same_points.items()})
    relative = {arm: relative_regularizer(runs[arm]) for arm in (KEPT, CLEAN, NOISY)}
    _draw_over_steps(regularizer, relative, geometric=True)
    loss.set(title="Mean squared error", yscale="log")
    length.set(title="Curve length", ylim=(3.8, 8))
    length.axhspan(*simplest_lengths(), color="black", alpha=0.12, linewidth=0)
    changes.set(title="Convexity changes", ylim=(0, None))
    changes.axhline(FEWEST_CHANGES, color="black", linestyle=":", linewidth=1.2)
    regularizer.set(title="$R$ over its minimum", yscale="log")
    regularizer.axhline(1, color="black", linestyle=":", linewidth=1.2)
    for axis in (loss, length, changes, regularizer):
        _mark_end_of_noise(axis, runs)
    _draw_legend(below, number)
    return picture


def _draw_curves(axis: Axes, runs: Mapping[str, RunFolder]) -> None:
    """Draw the curves of all runs and the points."""
    x = np.linspace(-1.15, 1.15, 1001)
    for arm, run in runs.items():
        axis.plot(x, curves(run, x).T, color=COLORS[arm], linewidth=1.1, alpha=0.75)
    axis.scatter(*points(), s=26, color="black", zorder=3)
    axis.set(xlabel="x", ylim=(-1.25, 1.25), xlim=(x[0], x[-1]))
    plain(axis)


def _draw_over_steps(axis: Axes, found: Mapping[str, Curves], geometric: bool = False) -> None:
    for arm, of_arm in found.items():
        later = of_arm.steps > 0
        width = 1.8 if arm in (CLEAN, NOISY) else 1.2
        steps, values = of_arm.steps[later], of_arm.values[:, later]
        draw = draw_geometric_band if geometric else draw_band
        draw(axis, steps, values, COLORS[arm], linewidth=width)
    axis.set(xscale="log", xlabel="SGD steps (batches of one)", xlim=(10, steps[-1]))
    axis.set_xticks([10**k for k in range(1, 8, 2)])
    plain(axis)


def _mark_end_of_noise(axis: Axes, runs: Runs) -> None:
    axis.axvline(read_setting(runs[NOISY].config, "model.noise_steps"), color="black", linewidth=0.7, linestyle="--")


def _draw_legend(picture: SubFigure, seeds: int) -> None:
    handles: list[Artist] = [
        *(Line2D([], [], color=COLORS[arm], linewidth=2, label=label) for arm, label in LABELS.items()),
        Line2D([], [], color="black", linewidth=0.7, linestyle="--", label="noise ends"),
        Line2D([], [], color="black", linestyle=":", linewidth=1.2, label="least possible"),
        Patch(color="black", alpha=0.12, linewidth=0, label="lengths of the simplest functions"),
    ]
    title = seeds_title(seeds)
    picture.legend(handles=handles, title=title, loc="outside lower center", ncols=4, frameon=False, fontsize=9)


_NONE = ["--model.label_noise.std", "0"]
# The same slow time η²·Var·steps as at scale paper, by larger steps and more noise.
_FAST = ["--model.optimizer.lr", "1e-3", "--model.label_noise.std", "2"]
_SHORT = ["--model.noise_steps", "5000000", "--trainer.max_steps", "5500000"]

FIGURE = Figure(
    name="blanc-relu-1d",
    title="Label noise makes all networks on a line the simplest interpolation (Blanc et al., Fig. 2 and 3)",
    config="figures/blanc-relu-1d.yaml",
    scales={
        "ci": Scale(
            seeds=5,
            options=[*_FAST, *_SHORT],
            arms={CLEAN: _NONE, KEPT: [*_NONE, "--data.label_std", "2"]},
        ),
        "paper": Scale(seeds=10, arms={CLEAN: _NONE, KEPT: [*_NONE, "--data.label_std", "1"]}),
    },
    arms={
        CLEAN: [],
        NOISY: [],
        KEPT: [],
        OUTPUT_ONLY: ["--model.net.train_layers", "[1]"],
        HIDDEN_ONLY: ["--model.net.train_layers", "[0]"],
    },
    claims=_claims,
    draw=_draw,
)
