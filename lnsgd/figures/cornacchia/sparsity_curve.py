"""Active neurons and errors as the label noise goes from 0 to 1: Cornacchia et al., App. A.

The paper's p can be read in two ways. If a label is *replaced* with probability p by one of all C classes, it is wrong
with probability q = p(C − 1)/C, and every wrong class is as likely. If a label *flips* to a wrong class with
probability p, then q = p. So one run serves both readings: the axis above the pictures is q. The paper's pure noise at
p = 1 can only be the first reading: two classes that are all flipped are learned as well as the right ones.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import Claim, judge, slug
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import by_setting, measured
from lnsgd.figures.framework.style import BLUE, GREY, ORANGE, draw_band, plain
from lnsgd.runs.folder import RunFolder

HYPERCUBE, MNIST = "hypercube", "MNIST"
CONFIGS = {
    HYPERCUBE: "figures/cornacchia-sparsity-curve-hypercube.yaml",
    MNIST: "figures/cornacchia-sparsity-curve-mnist.yaml",
}
UNITS = {arm: read_setting(shipped_config(name), "model.net.widths")[1] for arm, name in CONFIGS.items()}
# Number of classes C.
CLASSES = {HYPERCUBE: 2, MNIST: 10}

# Steps of 0.05, and of 0.025 below 0.2, where the number of active neurons falls most.
LEVELS = [*(level / 40 for level in range(8)), *(level / 20 for level in range(4, 21))]

# The paper does not define when a network fits; here its training error must be at most this, in percent.
FITS = 1.0

# The paper's a(0) ≫ a(1), read as an order of magnitude.
MUCH_LESS = 0.1

# One example of a test set of 10,000, in percentage points.
ONE_EXAMPLE = 0.01


class SparsityCurve(NamedTuple):
    """Active neurons and errors at the end of training, for S seeds at L levels of noise.

    Attributes:
        noise: p, (L,).
        active: Typical number of active neurons on the training set, (S, L).
        train_error: Error on the training set with clean labels, in percent, (S, L).
        test_error: Error on the test set, in percent, (S, L).
    """

    noise: np.ndarray
    active: np.ndarray
    train_error: np.ndarray
    test_error: np.ndarray

    @property
    def sparsest(self) -> int | None:
        """Return the level with the fewest active neurons among those that fit (means over seeds), or ``None``."""
        fits = self.train_error.mean(0) <= FITS
        return int(np.where(fits, self.active.mean(0), np.inf).argmin()) if fits.any() else None


def sparsity_curve(run: RunFolder) -> SparsityCurve:
    """Read the last measurements of a run whose replicas differ in noise and seed."""

    def last(measure: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        return by_setting(run, "noise", measured(run, measure, split).last)

    noise, active = last("active_count", "train")
    return SparsityCurve(noise, active, 100 * last("error", "train")[1], 100 * last("error", "test")[1])


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm, run in runs.items() for claim in _judge_arm(arm, sparsity_curve(run))]


def _judge_arm(arm: str, curve: SparsityCurve) -> list[Claim]:
    seeds, best = len(curve.active), curve.sparsest
    unknown = np.full(seeds, np.nan)
    ratio = unknown if best is None else curve.active[:, best] / curve.active[:, 0]
    difference = unknown if best is None else curve.test_error[:, best] - curve.test_error[:, 0]
    at = "at no p" if best is None else f"at p = {curve.noise[best]:.2g}, the sparsest"
    at += f" with train error up to {FITS:.0f} %, end of training"
    return [
        judge(
            f"{slug(arm)}-ends",
            f"{arm}: pure noise leaves few active neurons, a(1)/a(0) at the end of training",
            STATEMENTS["curve-ends"],
            paper="a(0) ≫ a(1)",
            measured=curve.active[:, -1] / curve.active[:, 0],
            high=MUCH_LESS,
        ),
        judge(
            f"{slug(arm)}-fits",
            f"{arm}: with some noise it still fits with at most half the active neurons, a(p)/a(0) {at}",
            STATEMENTS["curve-fits"],
            paper="at most ½",
            measured=ratio,
            high=0.5,
        ),
        judge(
            f"{slug(arm)}-error",
            f"{arm}: there the test error is lower than without noise (difference in points)",
            STATEMENTS["curve-generalizes"],
            paper="lower",
            measured=difference,
            high=-ONE_EXAMPLE,
        ),
    ]


def _table(runs: Runs) -> Table:
    table = Table(title="At the end of training, mean over seeds")
    for column in ("arm", "p", "active neurons", "train error", "test error"):
        table.add_column(column, no_wrap=True)
    for arm, run in runs.items():
        curve = sparsity_curve(run)
        for level, noise in enumerate(curve.noise):
            table.add_row(
                arm,
                f"{noise:.2g}" + " (sparsest that fits)" * (level == curve.sparsest),
                f"{curve.active.mean(0)[level]:.1f}",
                f"{curve.train_error.mean(0)[level]:.2f} %",
                f"{curve.test_error.mean(0)[level]:.2f} %",
            )
    return table


def _comparison(runs: Runs) -> Table:
    """Compare no noise, the sparsest level that fits and pure noise."""
    table = Table("problem", title="At the end of training, mean over seeds")
    for column in ("label noise p", "active neurons", "train error %", "test error %"):
        table.add_column(column, no_wrap=True)
    for arm, run in runs.items():
        curve = sparsity_curve(run)
        levels = {0: "", curve.sparsest: " (sparsest that fits)", len(curve.noise) - 1: " (pure noise)"}
        for level, note in levels.items():
            if level is not None:
                numbers = (curve.active, curve.train_error, curve.test_error)
                means = (f"{values.mean(0)[level]:{digits}}" for values, digits in zip(numbers, (".1f", ".2f", ".2f")))
                table.add_row(arm, f"{curve.noise[level]:.2g}{note}", *means)
    return table


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 6), layout="constrained")
    axes = picture.subplots(2, len(runs), sharex=True, squeeze=False)
    for (arm, run), (top, bottom) in zip(runs.items(), axes.T):
        curve = sparsity_curve(run)
        seeds = f", mean ± s.d. over {len(curve.active)} seeds" if len(curve.active) > 1 else ""
        draw_band(top, curve.noise, curve.active, BLUE, marker="o", markersize=4)
        draw_band(bottom, curve.noise, curve.test_error, ORANGE, "test error", marker="o", markersize=4)
        draw_band(bottom, curve.noise, curve.train_error, GREY, "train error", marker="o", markersize=4, linestyle="--")
        top.set(title=f"{arm}{seeds}", ylabel=f"active neurons a(p), of {UNITS[arm]}", ylim=(0, None))
        _draw_wrong_axis(top, CLASSES[arm])
        bottom.set(xlabel="label noise p (a label is replaced)", ylabel="error (%)")
        bottom.set(ylim=(0, None), xlim=(-0.02, 1.02))
        _mark_sparsest(top, bottom, curve)
        bottom.legend(loc="upper center", framealpha=1, edgecolor="white")
        plain(top)
        plain(bottom)
    return picture


def _draw_wrong_axis(axis: Axes, classes: int) -> None:
    """Draw the probability that a label is wrong above a picture."""
    part = (classes - 1) / classes
    above = axis.secondary_xaxis("top", functions=(lambda p: part * np.asarray(p), lambda q: np.asarray(q) / part))
    above.set_xlabel("a label is wrong with probability", fontsize=9, color=GREY)
    above.tick_params(labelsize=8, colors=GREY)


def _mark_sparsest(top: Axes, bottom: Axes, curve: SparsityCurve) -> None:
    """Mark the level of noise at which the network is sparsest and still fits."""
    level = curve.sparsest
    if level is None:
        return
    noise, active = curve.noise[level], curve.active.mean(0)
    for axis in (top, bottom):
        axis.axvline(noise, color=GREY, linestyle=":", linewidth=1.2)
    top.annotate(
        f"p = {noise:.2g}: sparsest that fits\n(train error ≤ {FITS:.0f} %), a = {active[level]:.0f}",
        (noise, active[level]),
        xytext=(0.62, 0.62),
        textcoords="axes fraction",
        ha="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        arrowprops={"arrowstyle": "->", "color": GREY},
    )


FIGURE = Figure(
    name="cornacchia-sparsity-curve",
    title="Active neurons and errors as the label noise goes from 0 to 1 (Cornacchia et al., App. A)",
    config=CONFIGS,
    scales={
        "ci": Scale(
            seeds=2,
            options=["--replicas.noise", "[0.0,0.1,0.2,0.4,0.6,0.8,1.0]"],
            arms={
                # Few images, so that they are fitted in few steps. The step size is halved once and late, because
                # neurons become silent slowly at a small step size.
                MNIST: [
                    *("--data.source", "sample", "--data.subset", "2000", "--trainer.max_epochs", "24"),
                    *("--model.lr_scheduler.step_size", "18"),
                ],
            },
        ),
        "paper": Scale(seeds=10, options=["--replicas.noise", str(LEVELS)]),
    },
    arms={HYPERCUBE: [], MNIST: []},
    table=_table,
    comparison=_comparison,
    claims=_claims,
    draw=_draw,
)
