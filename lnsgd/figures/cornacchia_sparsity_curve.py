"""Active neurons and errors as the label noise goes from 0 to 1: Cornacchia et al., App. A."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import by_setting, measured
from lnsgd.figures.style import BLUE, GREY, ORANGE, draw_band, plain
from lnsgd.run_folder import RunFolder

HYPERCUBE, MNIST = "hypercube", "MNIST"
UNITS = {HYPERCUBE: 240, MNIST: 600}
# What a replaced label is drawn from is all C classes, so it is wrong with this probability.
FLIPS = {HYPERCUBE: "p/2", MNIST: "9p/10"}
SOURCE = "Cornacchia et al., App. A"

# The paper draws no line between fitting and not fitting; here a network fits up to this training error, in percent.
FITS = 1.0

# a(0) ≫ a(1), read as an order of magnitude.
MUCH_LESS = 0.1

# One example of a test set of 10,000, in points.
ONE_EXAMPLE = 0.01


class SparsityCurve(NamedTuple):
    """What L levels of noise end with, for S seeds.

    Attributes:
        noise: p, (L,).
        active: Typical number of active neurons over the training set, (S, L).
        train_error: On clean labels, in percent, (S, L).
        test_error: The same on the test set, (S, L).
    """

    noise: np.ndarray
    active: np.ndarray
    train_error: np.ndarray
    test_error: np.ndarray

    @property
    def sparsest(self) -> int | None:
        """The level that still fits (mean over seeds) and has the fewest active neurons; ``None`` where none fits."""
        fits = self.train_error.mean(0) <= FITS
        return int(np.where(fits, self.active.mean(0), np.inf).argmin()) if fits.any() else None


def sparsity_curve(run: RunFolder) -> SparsityCurve:
    """The ends of a run whose replicas differ in noise and seed."""

    def last(measure: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        return by_setting(run, "noise", measured(run, measure, split).last)

    noise, active = last("active_count", "train")
    return SparsityCurve(noise, active, 100 * last("error", "train")[1], 100 * last("error", "test")[1])


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm, run in runs.items() for claim in _of_arm(arm, sparsity_curve(run))]


def _of_arm(arm: str, curve: SparsityCurve) -> list[Claim]:
    seeds, best = len(curve.active), curve.sparsest
    unknown = np.full(seeds, np.nan)
    ratio = unknown if best is None else curve.active[:, best] / curve.active[:, 0]
    difference = unknown if best is None else curve.test_error[:, best] - curve.test_error[:, 0]
    at = "at no p" if best is None else f"at p = {curve.noise[best]:.2g}, the sparsest"
    at += f" with train error up to {FITS:.0f} %, end of training"
    return [
        judge(
            f"{arm}: pure noise leaves few active neurons, a(1)/a(0) at the end of training",
            source=SOURCE,
            paper="a(0) ≫ a(1)",
            measured=(curve.active[:, -1] / curve.active[:, 0]).tolist(),
            high=MUCH_LESS,
        ),
        judge(
            f"{arm}: with some noise it still fits with at most half the active neurons, a(p)/a(0) {at}",
            source="Cornacchia et al., Fig. 1, 5 and App. A",
            paper="at most ½",
            measured=ratio.tolist(),
            high=0.5,
        ),
        judge(
            f"{arm}: there the test error is lower than without noise (difference in points)",
            source="Cornacchia et al., Fig. 1, 5 and App. A",
            paper="lower",
            measured=difference.tolist(),
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
        bottom.set(xlabel=f"label noise p (a label is wrong with probability {FLIPS[arm]})", ylabel="error (%)")
        bottom.set(ylim=(0, None), xlim=(-0.02, 1.02))
        _mark_sparsest(top, bottom, curve)
        bottom.legend(loc="upper center", framealpha=1, edgecolor="white")
        plain(top)
        plain(bottom)
    return picture


def _mark_sparsest(top: Axes, bottom: Axes, curve: SparsityCurve) -> None:
    """A line at the noise with which the network is sparsest and still fits."""
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


CONFIG = "figures/cornacchia-sparsity-curve-{}.yaml"

FIGURE = Figure(
    name="cornacchia-sparsity-curve",
    title="Active neurons and errors as the label noise goes from 0 to 1 (Cornacchia et al., App. A)",
    config={HYPERCUBE: CONFIG.format("hypercube"), MNIST: CONFIG.format("mnist")},
    scales={
        "ci": Scale(
            seeds=2,
            options=["--replicas.noise", "[0.0,0.1,0.2,0.4,0.6,0.8,1.0]"],
            arms={
                # Few images, so that they are fitted in few steps; the step size is halved once, late: neurons
                # fall silent slowly at a small one.
                MNIST: [
                    *("--data.source", "sample", "--data.subset", "2000", "--trainer.max_epochs", "24"),
                    *("--model.lr_scheduler.step_size", "18"),
                ],
            },
        ),
        "paper": Scale(seeds=3),
    },
    arms={HYPERCUBE: [], MNIST: []},
    table=_table,
    claims=_claims,
    draw=_draw,
)
