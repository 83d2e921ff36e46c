"""Label noise makes a network on the hypercube problem sparser and better: Cornacchia et al., Fig. 1."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import Curves, measured
from lnsgd.figures.style import BLUE, GREY, ORANGE, draw_band, log_spread, mark_paper, plain
from lnsgd.run_folder import RunFolder

CLEAN, NOISY = "p = 0", "p = 0.2"
COLORS = {CLEAN: BLUE, NOISY: ORANGE}
SOURCE = "Cornacchia et al., Fig. 1"

# The paper's numbers: test error in percent, and typical number of active neurons over the training set.
PAPER_ERROR = {CLEAN: 49.0, NOISY: 21.0}
PAPER_ACTIVE = {CLEAN: 94.0, NOISY: 47.0}

# How close a number of the paper counts as reproduced: in points of error, and relative for neurons.
POINTS, RELATIVE = 5, 0.2

# One example of a test set of 10,000, in points.
ONE_EXAMPLE = 0.01


def first_fit(train_error: Curves) -> np.ndarray:
    """At which measurement each replica first makes no training error, (R,); −1 where it never does."""
    fits = train_error.values == 0
    return np.where(fits.any(1), fits.argmax(1), -1)


def _first_fit(run: RunFolder) -> np.ndarray:
    return first_fit(measured(run, "error", "train"))


def _fit_steps(run: RunFolder) -> np.ndarray:
    """The last step where a replica never fits."""
    return measured(run, "error", "train").steps[_first_fit(run)]


def _at_fit(run: RunFolder, curves: Curves) -> np.ndarray:
    """The values where each replica first fits, (R,); the last ones where it never does."""
    return curves.values[np.arange(len(curves.values)), _first_fit(run)]


def _test_error(run: RunFolder) -> Curves:
    curves = measured(run, "error", "test")
    return curves._replace(values=100 * curves.values)


def _active(run: RunFolder) -> Curves:
    return measured(run, "active_count", "train")


def _claims(runs: Runs) -> list[Claim]:
    fit = "where each seed's train error is first zero"
    errors = {arm: _at_fit(run, _test_error(run)) for arm, run in runs.items()}
    active = {arm: _at_fit(run, _active(run)) for arm, run in runs.items()}
    last_errors = {arm: _test_error(run).last for arm, run in runs.items()}
    last_active = {arm: _active(run).last for arm, run in runs.items()}
    return [
        *_numbers(errors, active, fit),
        *_effects(errors, active, fit),
        *_effects(last_errors, last_active, f"at step {_active(runs[CLEAN]).steps[-1]:,}"),
        _longer_to_fit(runs),
    ]


def _numbers(errors: Mapping[str, np.ndarray], active: Mapping[str, np.ndarray], where: str) -> list[Claim]:
    """The paper's four numbers, each on its own."""
    of_error = [
        judge(
            f"{arm}: test error in %, {where}",
            source=SOURCE,
            paper=PAPER_ERROR[arm],
            measured=errors[arm].tolist(),
            low=PAPER_ERROR[arm] - POINTS,
            high=PAPER_ERROR[arm] + POINTS,
        )
        for arm in (CLEAN, NOISY)
    ]
    of_active = [
        judge(
            f"{arm}: active neurons of 240 on the training set, {where}",
            source=SOURCE,
            paper=PAPER_ACTIVE[arm],
            measured=active[arm].tolist(),
            low=PAPER_ACTIVE[arm] * (1 - RELATIVE),
            high=PAPER_ACTIVE[arm] * (1 + RELATIVE),
        )
        for arm in (CLEAN, NOISY)
    ]
    return [*of_error, *of_active]


def _effects(errors: Mapping[str, np.ndarray], active: Mapping[str, np.ndarray], where: str) -> list[Claim]:
    """What noise does, paired by seed."""
    return [
        judge(
            f"noise lowers the test error (difference in points, {where})",
            source=SOURCE,
            paper=PAPER_ERROR[NOISY] - PAPER_ERROR[CLEAN],
            measured=(errors[NOISY] - errors[CLEAN]).tolist(),
            high=-ONE_EXAMPLE,
        ),
        judge(
            f"noise at least halves the active neurons (ratio, {where})",
            source=SOURCE,
            paper=PAPER_ACTIVE[NOISY] / PAPER_ACTIVE[CLEAN],
            measured=(active[NOISY] / active[CLEAN]).tolist(),
            high=0.5,
        ),
    ]


def _longer_to_fit(runs: Runs) -> Claim:
    """NaN where a network without noise never fits; one with noise that never does took at least until the end."""
    ratios = np.where(_first_fit(runs[CLEAN]) >= 0, _fit_steps(runs[NOISY]) / _fit_steps(runs[CLEAN]), np.nan)
    return judge(
        "noise takes longer to fit (steps to the first zero train error, ratio by seed)",
        source=SOURCE,
        paper="longer",
        measured=ratios.tolist(),
        low=1.0,
    )


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 4.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    for arm, run in runs.items():
        train, test = measured(run, "error", "train"), _test_error(run)
        shown = log_spread(train.steps)
        draw_band(left, test.steps[shown], test.values[:, shown], COLORS[arm])
        draw_band(left, train.steps[shown], 100 * train.values[:, shown], COLORS[arm], linestyle="--", linewidth=1.2)
        draw_band(right, test.steps[shown], _active(run).values[:, shown], COLORS[arm])
        _mark_fits(left, run, _at_fit(run, test), COLORS[arm])
        _mark_fits(right, run, _at_fit(run, _active(run)), COLORS[arm])
    for axis, numbers, unit in ((left, PAPER_ERROR, " %"), (right, PAPER_ACTIVE, "")):
        for arm, number in numbers.items():
            mark_paper(axis, number, f"paper\n{number:.0f}{unit}", COLORS[arm])
    left.set(ylabel="error (%)", title="Train and test error", ylim=(0, 60))
    right.set(ylabel="active neurons (of 240)", title="Typical number of active neurons, training set", ylim=(0, 140))
    for axis in (left, right):
        axis.set(xscale="log", xlabel="SGD steps (batches of one)", xlim=(10, _active(runs[CLEAN]).steps[-1]))
        plain(axis)
    _legend(right, len(_active(runs[CLEAN]).values))
    return picture


def _mark_fits(axis: Axes, run: RunFolder, values: np.ndarray, color: str) -> None:
    """A dot for each seed, where its network first fits the training set."""
    fits = _first_fit(run) >= 0
    axis.scatter(_fit_steps(run)[fits], values[fits], s=22, color=color, edgecolor="white", linewidth=0.6, zorder=3)


def _legend(axis: Axes, seeds: int) -> None:
    handles = [
        *(Line2D([], [], color=COLORS[arm], linewidth=2, label=f"label noise {arm}") for arm in (CLEAN, NOISY)),
        Line2D([], [], color=GREY, label="test error"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="train error"),
        Line2D([], [], color=GREY, marker="o", linestyle="", label="a seed's first zero train error"),
    ]
    title = f"mean ± s.d. over {seeds} seeds" if seeds > 1 else None
    axis.legend(
        handles=handles, title=title, frameon=False, loc="lower left", fontsize=9, title_fontsize=9, labelspacing=0.3
    )


FIGURE = Figure(
    name="cornacchia-hypercube",
    title="Label noise makes a network on the hypercube problem sparser and better (Cornacchia et al., Fig. 1)",
    config="figures/cornacchia-hypercube.yaml",
    scales={"ci": Scale(seeds=3, options=["--data.test_size", "2000"]), "paper": Scale(seeds=20)},
    arms={CLEAN: ["--model.label_noise.p", "0"], NOISY: ["--model.label_noise.p", "0.2"]},
    claims=_claims,
    draw=_draw,
)
