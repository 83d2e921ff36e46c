"""Does label noise lower the trace of the Hessian on MNIST? Beyond Blanc et al. and Cornacchia et al.

For a piecewise linear network the Hessian has the trace of its Gauss–Newton part, which is Tr H = c·R.
R = (1/n)Σ_i Σ_k ‖∇_θ h_k(x_i)‖² sums the squared norms of the Jacobian over the outputs, and c is the mean curvature of
the loss along the outputs, weighted by these norms. For the squared loss (without ½) c = 2, whatever the weights are;
for the softmax and logistic losses c falls as examples are classified with more certainty.

With squared loss and Gaussian label noise, the theory of Blanc et al. predicts that R falls after the fit, as
dθ/ds = −∇R along the networks that interpolate, in the slow time s = η²Var·steps.
"""

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.framework.claims import BEYOND, CONTROL, Claim, judge, slug
from lnsgd.figures.framework.configs import read_setting
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import by_setting, measured, replicas
from lnsgd.figures.framework.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    draw_band,
    draw_geometric_band,
    mean_and_deviation,
    plain,
)
from lnsgd.runs.folder import RunFolder

SQUARED, LOGISTIC, SOFTMAX = "squared", "logistic", "softmax"
BLANC = "beyond Blanc et al., Theorem 1"
README = "beyond Cornacchia et al., § 6.3: the table of the README"

# The quantities that are compared with and without noise, in the order in which picture and table show them.
TRACE, CURVATURE, JACOBIAN, ACTIVE, ERROR = "Tr H", "curvature c", "R", "active fraction", "test error"
QUANTITIES = (TRACE, CURVATURE, JACOBIAN, ACTIVE, ERROR)
COLORS = dict(zip(QUANTITIES, (BLUE, ORANGE, GREEN, GREY, PURPLE), strict=True))

# Curves at different noise are the same function of slow time if they agree up to this.
COLLAPSE = (0.9, 1.1)


def at_end(run: RunFolder, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels of noise of a run, increasing, (L,), and a quantity at the end, (S, L) for S seeds."""
    trace = measured(run, "hessian_trace", "train").last
    regularizer = measured(run, "implicit_regularizer", "train").last
    values = {
        TRACE: trace,
        CURVATURE: trace / regularizer,
        JACOBIAN: regularizer,
        ACTIVE: measured(run, "active_fraction", "train").last,
        ERROR: 100 * measured(run, "error", "test").last,
    }
    return by_setting(run, "noise", values[what])


def over_clean(run: RunFolder, what: str) -> np.ndarray:
    """Return a quantity with the most noise over that of the same seed without noise, at the end, (S,)."""
    levels, values = at_end(run, what)
    assert levels[0] == 0
    return values[:, -1] / values[:, 0]


def in_slow_time(run: RunFolder, measure: str, split: str, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a measure in slow time, after step 0.

    Returns:
        The slow times s = η²Var·steps of the measurements, (T,), and the values of each seed, (S, T).
    """
    found, table = measured(run, measure, split), replicas(run)
    later = found.steps > 0
    scale = (read_setting(run.config, "model.optimizer.lr") * noise) ** 2
    return scale * found.steps[later], found.values[(table["noise"] == noise).to_numpy()][:, later]


def collapse(run: RunFolder, less: float, more: float) -> np.ndarray:
    """Return R at the level ``more`` over R at the level ``less``, at the slow time at which the latter ends, (S,).

    The logarithm of R is interpolated along log s between measurements.
    """
    slow, of_less = in_slow_time(run, "implicit_regularizer", "train", less)
    fast, of_more = in_slow_time(run, "implicit_regularizer", "train", more)
    logs = [np.interp(np.log(slow[-1]), np.log(fast), np.log(curve)) for curve in of_more]
    return np.exp(logs) / of_less[:, -1]


def _claims(runs: Runs) -> list[Claim]:
    return [*_judge_squared(runs[SQUARED]), *(c for arm in (LOGISTIC, SOFTMAX) for c in _judge_uniform(arm, runs[arm]))]


def _judge_squared(run: RunFolder) -> list[Claim]:
    levels, regularizers = at_end(run, JACOBIAN)
    noisy = levels[1:]
    largest = f"squared loss, σ = {levels[-1]:g} over σ = 0, at the end"
    return [
        *(
            judge(
                f"squared-falls-{slug(f'{level:g}')}",
                f"squared loss: R with σ = {level:g} over that with σ = 0, same seed, at the end",
                BEYOND,
                source=BLANC,
                paper="expected: smaller",
                measured=regularizers[:, place] / regularizers[:, 0],
                high=1.0,
            )
            for place, level in enumerate(levels)
            if level > 0
        ),
        *(
            judge(
                f"slow-time-{slug(f'{less:g} {more:g}')}",
                f"squared loss: R with σ = {more:g} over that with σ = {less:g} at the same s, the end of σ = {less:g}",
                BEYOND,
                source=BLANC,
                paper=1.0,
                measured=collapse(run, less, more),
                low=COLLAPSE[0],
                high=COLLAPSE[1],
            )
            for less, more in pairwise(noisy)
        ),
        judge(
            "squared-active",
            f"active fraction on training images: {largest}",
            BEYOND,
            source=BLANC,
            paper="expected: smaller",
            measured=over_clean(run, ACTIVE),
            high=1.0,
        ),
        judge(
            "squared-test-error",
            f"test error: {largest}",
            BEYOND,
            source=BLANC,
            paper="expected: smaller",
            measured=over_clean(run, ERROR),
            high=1.0,
        ),
        judge(
            "squared-curvature",
            "squared loss: c = Tr H / R, mean over all levels, at the end",
            CONTROL,
            source="derived: the second derivative of (h − y)²",
            paper=2.0,
            measured=at_end(run, CURVATURE)[1].mean(axis=1),
            low=1.96,
            high=2.04,
        ),
        judge(
            "squared-fits",
            "squared loss: largest training error over the levels, at the end",
            CONTROL,
            source="the theory's setting: networks that interpolate",
            paper=0.0,
            measured=by_setting(run, "noise", measured(run, "error", "train").last)[1].max(axis=1),
            high=0.0,
            deterministic=True,
        ),
    ]


def _judge_uniform(arm: str, run: RunFolder) -> list[Claim]:
    """Judge what the README shows: the trace rises with uniform noise. Certainty falls, so the curvature must rise."""
    level = at_end(run, TRACE)[0][-1]
    return [
        judge(
            f"{arm}-{slug(what)}",
            f"{arm} loss: {what}, p = {level:g} over p = 0, same seed, at the end",
            BEYOND,
            source=README,
            paper=f"expected: {'larger' if rises else 'smaller'}",
            measured=over_clean(run, what),
            low=1.0 if rises else None,
            high=None if rises else 1.0,
        )
        for what, rises in ((TRACE, True), (CURVATURE, True), (JACOBIAN, False), (ACTIVE, False), (ERROR, False))
    ]


def _table(runs: Runs) -> Table:
    table = Table("loss", "noise", *QUANTITIES, title="At the end, mean ± standard deviation over seeds")
    for arm, run in runs.items():
        found = {what: at_end(run, what)[1] for what in QUANTITIES}
        for place, level in enumerate(at_end(run, TRACE)[0]):
            numbers = [mean_and_deviation(found[what][:, place], ".3g") for what in QUANTITIES]
            table.add_row(arm, f"{level:g}", *numbers)
    return table


def _comparison(runs: Runs) -> Table:
    table = Table("loss", title="Most noise over no noise, mean ± standard deviation over seeds")
    for what in QUANTITIES:
        table.add_column(what)
    for arm, run in runs.items():
        table.add_row(arm, *(mean_and_deviation(over_clean(run, what), ".2f") for what in QUANTITIES))
    return table


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(14, 4), layout="constrained")
    fall, errors, factors = picture.subplots(1, 3)
    run = runs[SQUARED]
    _draw_slow(fall, run, JACOBIAN)
    _draw_slow(errors, run, ERROR)
    seeds = len(over_clean(run, JACOBIAN))
    fall.set_title(f"(a) squared loss, Gaussian noise, {seeds} seeds", fontsize=10)
    errors.set_title("(b) the same networks: test error", fontsize=10)
    fall.set(ylabel="R", yscale="log")
    errors.set(ylabel="test error in percent")
    for axis in (fall, errors):
        axis.set(xscale="log", xlabel="slow time s = η²σ² · steps")
        axis.legend(frameon=False, fontsize=9)
    _draw_factors(factors, runs)
    for axis in (fall, errors, factors):
        plain(axis)
    return picture


def _draw_slow(axis: Axes, run: RunFolder, what: str) -> None:
    """Draw a quantity against slow time for each level of noise, and its end without noise as a line."""
    measure, split = {JACOBIAN: ("implicit_regularizer", "train"), ERROR: ("error", "test")}[what]
    unit, draw = (100, draw_band) if what == ERROR else (1, draw_geometric_band)
    levels, ends = at_end(run, what)
    axis.axhline(ends[:, 0].mean(), color=GREY, linestyle="--", linewidth=1.2, label="σ = 0, at the end")
    for level, color in zip(levels[1:], (BLUE, GREEN, ORANGE), strict=True):
        s, values = in_slow_time(run, measure, split, level)
        draw(axis, s, unit * values, color, f"σ = {level:g}", marker=".", markersize=4)


def _draw_factors(axis: Axes, runs: Runs) -> None:
    """Draw bars of the ratios of every quantity with and without noise, for each loss."""
    width = 0.8 / len(QUANTITIES)
    for place, what in enumerate(QUANTITIES):
        ratios = np.array([over_clean(run, what) for run in runs.values()])
        x = np.arange(len(runs)) + (place - (len(QUANTITIES) - 1) / 2) * width
        mean, spread = ratios.mean(axis=1), ratios.std(axis=1, ddof=1) if ratios.shape[1] > 1 else None
        label = f"{what} = Tr H / R" if what == CURVATURE else what
        axis.bar(x, mean - 1, width, bottom=1, yerr=spread, color=COLORS[what], label=label, error_kw={"linewidth": 1})
    axis.axhline(1, color="black", linewidth=0.8)
    names = {SQUARED: "Gaussian", LOGISTIC: "uniform", SOFTMAX: "uniform"}
    ticks = [f"{arm} loss,\n{names[arm]} {at_end(run, TRACE)[0][-1]:g}" for arm, run in runs.items()]
    axis.set_xticks(range(len(runs)), ticks, fontsize=9)
    axis.set(yscale="log", ylim=(0.015, None), ylabel="with noise / without noise")
    axis.set_title("(c) at the end: most noise over no noise", fontsize=10)
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower center")


CONFIG = "figures/beyond-trace-mnist.yaml"

FIGURE = Figure(
    name="beyond-trace-mnist",
    title="Does label noise lower the trace of the Hessian on MNIST? (beyond Blanc et al. and Cornacchia et al.)",
    config={SQUARED: "figures/beyond-trace-mnist-squared.yaml", LOGISTIC: CONFIG, SOFTMAX: CONFIG},
    scales={
        "ci": Scale(
            seeds=2,
            arms={
                SQUARED: [
                    *("--model.net.widths", "[784, 20, 10]", "--data.subset", "100", "--trainer.max_steps", "30000"),
                ],
                **{
                    arm: [
                        *("--model.net.widths", "[784, 100, 10]", "--data.subset", "1000"),
                        *("--data.batch_size", "32", "--trainer.max_epochs", "10"),
                    ]
                    for arm in (LOGISTIC, SOFTMAX)
                },
            },
        ),
        "paper": Scale(seeds=5),
    },
    arms={SQUARED: [], LOGISTIC: [], SOFTMAX: ["--model.loss", "lnsgd.losses.CrossEntropy"]},
    table=_table,
    comparison=_comparison,
    claims=_claims,
    draw=_draw,
)
