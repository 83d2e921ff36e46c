"""The distance from initialization grows like a small power of the training set's size: Nagarajan and Kolter."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from rich.table import Table
from scipy import stats

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.nagarajan import (
    COLORS,
    MARGIN,
    SETTINGS,
    A,
    B,
    C,
    distances,
    logarithmic,
    mean_and_spread,
    power_laws,
)
from lnsgd.figures.style import GREY, plain

# The paper's exponents.
LOW, HIGH = 0.25, 0.4


def _exponents(cells: pd.DataFrame) -> list[float]:
    """One for each seed whose cells all trained to the end."""
    return power_laws(cells, "m", "r", ["H", "seed"]).exponents


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's confidence interval of the mean; NaN for a single value."""
    if len(values) < 2:
        return float("nan"), float("nan")
    low, high = stats.t.interval(level, len(values) - 1, np.mean(values), stats.sem(values))
    return float(low), float(high)


def _claims(runs: Runs) -> list[Claim]:
    return [
        judge(
            f"{arm}: exponent of r ~ m^a",
            source=SETTINGS[arm].source,
            paper="0.25 … 0.4",
            measured=_exponents(distances(run)),
            low=LOW,
            high=HIGH,
        )
        for arm, run in runs.items()
    ]


def _table(runs: Runs) -> Table:
    table = Table("arm", "H", "m", "r", "steps", "test error", "exponent (95 % interval)", title="r ~ m^a")
    for arm, run in runs.items():
        cells = distances(run)
        for hidden, of_width in cells.groupby("H"):
            exponents = _exponents(of_width)
            low, high = interval(exponents)
            fitted = f"{np.mean(exponents):.3f} ({low:.3f} … {high:.3f})"
            for m, group in of_width.groupby("m"):
                error = f"{mean_and_spread(100 * group['error/test'])} %"
                numbers = [mean_and_spread(group.r), mean_and_spread(group.steps), error]
                table.add_row(arm, f"{hidden:,}", f"{m:,}", *numbers, fitted)
                fitted = ""
    return table


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 4.6), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=[3, 2])
    cells = {arm: distances(run) for arm, run in runs.items()}
    for color, (arm, of_arm) in zip(COLORS, cells.items(), strict=False):
        _draw_arm(left, of_arm, arm, color)
    left.set(xlabel="m, training examples", ylabel=r"$r = \|\theta - \theta_0\|_2$")
    logarithmic(left.xaxis, (m for of_arm in cells.values() for m in of_arm.m))
    lowest, highest = left.get_ylim()
    logarithmic(left.yaxis, (mark for mark in (0.5, 1, 2, 3, 5, 10, 20, 30) if lowest <= mark <= highest))
    left.legend(fontsize=8)
    plain(left)
    _draw_exponents(right, cells)
    return picture


def _draw_arm(axis: Axes, cells: pd.DataFrame, arm: str, color: str) -> None:
    """Every cell as a point, the mean over seeds of the fitted power laws as lines."""
    for line, (hidden, of_width) in zip(("-", "--", ":"), cells.groupby("H"), strict=False):
        axis.plot(of_width.m, of_width.r, "o", color=color, markersize=3.5, alpha=0.6)
        fits = power_laws(of_width, "m", "r", ["H", "seed"])
        m = np.array(sorted(of_width.m.unique()))
        curve = np.exp(np.mean(np.log(fits.factors))) * m ** np.mean(fits.exponents)
        label = f"{arm}, H = {hidden:,}: $m^{{{np.mean(fits.exponents):.2f}}}$"
        axis.plot(m, curve, line, color=color, linewidth=1.4, label=label)


def _draw_exponents(axis: Axes, cells: Mapping[str, pd.DataFrame]) -> None:
    axis.axvspan(LOW, HIGH, color=GREY, alpha=0.2, linewidth=0, label="paper: 0.25 … 0.4")
    labels: list[str] = []
    for color, (arm, of_arm) in zip(COLORS, cells.items(), strict=False):
        for hidden, of_width in of_arm.groupby("H"):
            exponents = _exponents(of_width)
            low, high = interval(exponents)
            place = len(labels)
            axis.plot(exponents, [place] * len(exponents), "|", color=color, markersize=9, alpha=0.6)
            axis.plot([low, high], [place, place], color=color, linewidth=2)
            axis.plot(np.mean(exponents), place, "o", color=color)
            labels.append(f"{arm}\nH = {hidden:,}")
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set(xlabel="a of r ~ m$^a$: seeds, mean, 95 % interval", xlim=(0, None))
    axis.margins(y=0.15)
    axis.invert_yaxis()
    axis.legend(fontsize=8, loc="lower left")
    plain(axis)


FIGURE = Figure(
    name="nagarajan-samples",
    title="The distance from initialization grows like a small power of the sample size (Nagarajan & Kolter, Fig. 1)",
    config={arm: setting.config for arm, setting in SETTINGS.items()},
    scales={
        "ci": Scale(
            seeds=3,
            options=["--data.source", "sample"],
            grids={A: SETTINGS[A].grid([40], [64, 256]), C: SETTINGS[C].grid([40], [64, 256, 1024])},
        ),
        "paper": Scale(
            seeds=5,
            options=["--trainer.max_steps", "1000000"],
            grids={
                MARGIN: SETTINGS[MARGIN].grid([80], [64, 256, 1024, 4096]),
                A: SETTINGS[A].grid([80], [64, 256, 1024, 4096, 16384]),
                B: SETTINGS[B].grid([80], [64, 256, 1024, 4096, 16384]),
                C: SETTINGS[C].grid([80], [64, 256, 1024, 4096, 16384]),
            },
        ),
        # For GPUs.
        "full": Scale(
            seeds=10,
            options=["--trainer.max_steps", "4000000"],
            grids={
                arm: setting.grid([1280, 320, 80], [64, 256, 1024, 4096, 16384]) for arm, setting in SETTINGS.items()
            },
        ),
    },
    arms={arm: setting.options for arm, setting in SETTINGS.items()},
    table=_table,
    claims=_claims,
    draw=_draw,
)
