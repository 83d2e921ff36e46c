"""Label noise makes all networks on a line the simplest interpolation: Blanc et al., Fig. 2 and 3.

ReLU networks 1-H-1 with a linear and a constant unit fit twelve points of a zigzag, four on each of its three pieces.
Without noise every run keeps kinks of its own between the points. With noise all runs are drawn to the least
R = mean_i ‖∇h(x_i)‖² among the functions through the points: linear where neighbouring points are on a line, with the
one change between concave and convex that the points ask for. What remains free is how a run turns between the fourth
and the fifth point and between the eighth and the ninth, within a small triangle.
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
from lnsgd.data.points_1d import SLOPE
from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import Curves, config, measured, replicas, weights
from lnsgd.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, draw_band, draw_geometric_band, plain
from lnsgd.measures import curve_length, minimal_regularizer
from lnsgd.run_folder import RunFolder

SOURCE = "Blanc et al., Fig. 2 and 3"
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

# What the points ask for.
FEWEST_CHANGES = 1

# A loss at which a curve goes through the points as far as one can see: they span 4/3.
FITS = 1e-3

# In units of y: how far a curve may leave a chord that it follows as far as one can see.
LINEAR = 0.02

# A slope tolerance of the convexity changes and LINEAR allow this much of the length.
LENGTH_SLACK = 0.01


def points(seed: int = 0, label_std: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels (12,) that a replica is trained on."""
    data = Points1D(seed=seed, label_std=label_std)
    data.setup()
    train = data.splits["train"]
    return train.inputs[:, 0].double().numpy(), train.labels[:, 0].double().numpy()


def simplest_lengths() -> tuple[float, float]:
    """Least and largest length of what is simplest: the points connected, and the zigzag that they are taken from."""
    return curve_length(*points()), 2 * float(np.hypot(1, SLOPE))


def curves(run: RunFolder, x: np.ndarray) -> np.ndarray:
    """The functions of all replicas in the end, (R, T), at inputs (T,)."""
    of = {name: weights(run, name) for name in ("layers.0.weight", "layers.0.bias", "layers.1.weight")}
    z = of["layers.0.weight"] * x + of["layers.0.bias"][:, :, None]
    bent = (of["layers.1.weight"] @ np.maximum(z, 0))[:, 0]
    return bent + weights(run, "skip.weight")[:, 0] * x + weights(run, "layers.1.bias")


def from_mean(values: np.ndarray) -> np.ndarray:
    """Largest distance of each of R curves (R, T) from their mean, (R,)."""
    return np.abs(values - values.mean(axis=0)).max(axis=1)


def relative_regularizer(run: RunFolder) -> Curves:
    """R over the least that any function through the replica's own labels has."""
    found = measured(run, "implicit_regularizer", "train")
    label_std = config(run)["data"]["init_args"]["label_std"]
    least = [minimal_regularizer(*points(int(seed), label_std)) for seed in replicas(run)["seed"]]
    return found._replace(values=found.values / np.array(least)[:, None])


def simple(run: RunFolder) -> np.ndarray:
    """Which replicas are simplest in the end, (R,): fewest convexity changes, and linear where the points are."""
    changes, deviation = measured(run, "convexity_changes"), measured(run, "chord_deviation", "train")
    return (changes.last == FEWEST_CHANGES) & (deviation.last <= LINEAR)


def first_below(found: Curves, level: np.ndarray | float) -> np.ndarray:
    """First measured step after the start at which each replica's value is at most its level, (R,); NaN where none."""
    later = found.steps > 0
    below = found.values[:, later] <= np.reshape(level, (-1, 1))
    return np.where(below.any(axis=1), found.steps[later][below.argmax(axis=1)], np.nan)


def _claims(runs: Runs) -> list[Claim]:
    return [*_fits(runs), *_shapes(runs), *_lengths(runs), *_regularizer(runs), *_controls(runs)]


def _end(runs: Runs) -> str:
    return f"in the end, step {measured(runs[CLEAN], 'curve_length').steps[-1]:,}"


def _fits(runs: Runs) -> list[Claim]:
    return [
        judge(
            f"{LABELS[arm]}: runs fit (mean squared error, {_end(runs)})",
            source=SOURCE,
            paper="all fit",
            measured=measured(runs[arm], "loss", "train").last.tolist(),
            high=FITS,
        )
        for arm in (CLEAN, NOISY)
    ]


def _shapes(runs: Runs) -> list[Claim]:
    x = np.linspace(-1, 1, 1001)
    noisy = runs[NOISY]
    return [
        judge(
            f"label noise: fewest convexity changes, {FEWEST_CHANGES} (fraction of runs, {_end(runs)})",
            source=SOURCE,
            paper="all",
            measured=(measured(noisy, "convexity_changes").last == FEWEST_CHANGES).astype(float).tolist(),
            low=1.0,
        ),
        judge(
            f"label noise: linear over three points on a line (largest distance from the chord, {_end(runs)})",
            source=SOURCE,
            paper="linear",
            measured=measured(noisy, "chord_deviation", "train").last.tolist(),
            high=LINEAR,
        ),
        judge(
            f"no noise: none is that simple (fraction of runs with both, {_end(runs)})",
            source=SOURCE,
            paper="none",
            measured=simple(runs[CLEAN]).astype(float).tolist(),
            high=0.0,
        ),
        judge(
            f"label noise: all curves are one (largest distance of a curve from their mean, {_end(runs)})",
            source=SOURCE,
            paper="the same",
            measured=from_mean(curves(noisy, x)).tolist(),
            high=0.05,
        ),
        judge(
            f"no noise: curves differ (largest distance of a curve from their mean, {_end(runs)})",
            source=SOURCE,
            paper="different",
            measured=from_mean(curves(runs[CLEAN], x)).tolist(),
            low=0.1,
        ),
    ]


def _lengths(runs: Runs) -> list[Claim]:
    noisy = measured(runs[NOISY], "curve_length")
    shortest, longest = simplest_lengths()
    loss = measured(runs[NOISY], "loss", "train")
    fitted = first_below(loss, loss.values[:, 0] / 100)
    short = first_below(noisy, longest * (1 + LENGTH_SLACK))
    return [
        judge(
            f"curve length without noise over that with noise (same seed, {_end(runs)})",
            source=f"{SOURCE}: 5.2 and 4.3",
            paper=5.2 / 4.3,
            measured=(measured(runs[CLEAN], "curve_length").last / noisy.last).tolist(),
            low=1.1,
        ),
        judge(
            f"label noise: curve length (simplest functions have {shortest:.2f} to {longest:.2f}; {_end(runs)})",
            source=SOURCE,
            paper="simplest",
            measured=noisy.last.tolist(),
            low=shortest * (1 - LENGTH_SLACK),
            high=longest * (1 + LENGTH_SLACK),
        ),
        judge(
            "label noise: loss falls first, length much later (step at which the length is one of a simplest function, "
            "over that at which a hundredth of the loss is left)",
            source=SOURCE,
            paper="much later",
            measured=(short / fitted).tolist(),
            low=10.0,
        ),
    ]


def _regularizer(runs: Runs) -> list[Claim]:
    return [
        judge(
            f"label noise: R over its minimum among functions through the points ({_end(runs)})",
            source="Blanc et al., 1-D ReLU; the minimum is derived",
            paper=1.0,
            measured=relative_regularizer(runs[NOISY]).last.tolist(),
            low=0.99,
            high=1.1,
        ),
        judge(
            f"no noise: R over the same minimum ({_end(runs)})",
            source="Blanc et al., 1-D ReLU; the minimum is derived",
            paper="far above",
            measured=relative_regularizer(runs[CLEAN]).last.tolist(),
            low=10.0,
        ),
    ]


def _controls(runs: Runs) -> list[Claim]:
    one_layer = [
        judge(
            f"control: noise with {arm} trained has no effect (fraction of runs that are simplest, {_end(runs)})",
            source="Blanc et al., 1-D ReLU",
            paper="none",
            measured=simple(runs[arm]).astype(float).tolist(),
            high=0.0,
        )
        for arm in (OUTPUT_ONLY, HIDDEN_ONLY)
    ]
    found = measured(runs[KEPT], "implicit_regularizer", "train")
    kept = judge(
        f"control: noise drawn once and kept does not lower R (R {_end(runs)}, over R at the start)",
        source="chosen",
        paper="no effect",
        measured=(found.last / found.values[:, 0]).tolist(),
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
    # Kept noise makes other points, which ask for other shapes.
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
    _legend(below, number)
    return picture


def _draw_curves(axis: Axes, runs: Mapping[str, RunFolder]) -> None:
    """All runs superimposed, over the points."""
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
    axis.axvline(config(runs[NOISY])["model"]["init_args"]["noise_steps"], color="black", linewidth=0.7, linestyle="--")


def _legend(picture: SubFigure, seeds: int) -> None:
    handles: list[Artist] = [
        *(Line2D([], [], color=COLORS[arm], linewidth=2, label=label) for arm, label in LABELS.items()),
        Line2D([], [], color="black", linewidth=0.7, linestyle="--", label="noise ends"),
        Line2D([], [], color="black", linestyle=":", linewidth=1.2, label="least possible"),
        Patch(color="black", alpha=0.12, linewidth=0, label="lengths of the simplest functions"),
    ]
    title = f"mean ± s.d. over {seeds} seeds" if seeds > 1 else None
    picture.legend(handles=handles, title=title, loc="outside lower center", ncols=4, frameon=False, fontsize=9)


_NONE = ["--model.label_noise.std", "0"]
# As far in slow time η²·Var·steps as the paper scale, by larger steps and more noise.
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
