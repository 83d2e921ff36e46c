"""Compare the distance from initialization with and without label noise or smoothing: beyond Nagarajan and Kolter."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.framework.claims import BEYOND, Claim, judge, slug
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.style import GREY, plain
from lnsgd.figures.nagarajan.shared import COLORS, MARGIN, SETTINGS, C, distances, mean_and_spread
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep import load_trajectories

CONFIG = "figures/nagarajan-label-noise.yaml"
P = "model.label_noise.p"

SMOOTHING = ["--model.label_noise", "lnsgd.label_noise.LabelSmoothing"]
SQUARED = ["--model.loss", "lnsgd.losses.SquaredLoss", *SETTINGS[C].options]
ARMS = {
    "cross-entropy, label noise": [],
    "cross-entropy, smoothing": SMOOTHING,
    "squared loss, label noise": SQUARED,
    "squared loss, smoothing": [*SQUARED, *SMOOTHING],
}

# The two moments that are compared, which are columns of `lengths`.
FITTED, ENDED = "first fit", "all steps"
NEVER = "never fits"

# The expectations before anything was run: a random walk adds distance; soft targets are reached sooner than hard ones.
EXPECTED = {"label noise": ("longer", 1.0, None), "smoothing": ("shorter", None, 1.0)}


def lengths(run: RunFolder) -> pd.DataFrame:
    """Return the cells of an arm with their noise level, and their distances at the first fit and after all steps.

    A network fits at the first measurement without errors on the labels of the data.

    Returns:
        Columns ``H``, ``m``, ``seed``, ``p``, ``first fit``, ``all steps``, ``error/test``, and ``never fits``: whether
        a network that took all its steps did not fit at any measurement. The ``first fit`` of such a network is NaN.
        All numbers are NaN for a network that did not take all its steps, for example because it diverged.
    """
    cells = distances(run, {P: "p"}).set_index("cell")
    measured = load_trajectories(run.path)
    errors = measured[(measured.measure == "error") & (measured.split == "train")].sort_values("step")
    fits = errors[errors.value == 0].groupby("cell").step.first().rename("step").reset_index()
    ways = measured[measured.measure == "distance_from_init"]
    ended = cells.status == "done"
    cells[FITTED] = fits.merge(ways, on=["cell", "step"]).set_index("cell").value.where(ended)
    cells[NEVER] = ended & ~cells.index.isin(fits.cell)
    cells[ENDED] = cells.r
    return cells.reset_index()[["H", "m", "seed", "p", FITTED, ENDED, "error/test", NEVER]]


def relative(cells: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return the distances over those of the same network, data and seed without noise, with a column for each p."""
    ways = _by_level(cells, what)
    return ways.div(ways[0.0], axis=0)


def _by_level(cells: pd.DataFrame, what: str) -> pd.DataFrame:
    return cells.pivot(index=["H", "m", "seed"], columns="p", values=what)


def _judged_ratios(cells: pd.DataFrame, what: str, p: float) -> list[float]:
    """Return the mean ratio of each seed at a noise level, over H and m.

    Networks that never fit are left out if the first fit is compared. Other ratios without a number, for example of
    diverged networks, make the mean NaN, so that the claim does not hold. A seed of which no network fits is left out.
    """
    ratios = relative(cells, what)[p]
    if what == FITTED:
        never = _by_level(cells, NEVER)[[0.0, p]].any(axis=1)
        ended = _by_level(cells, ENDED)[[0.0, p]].notna().all(axis=1)
        ratios = ratios[~(never & ended)]
    return [float(np.mean(of_seed.to_numpy())) for _, of_seed in ratios.groupby("seed")] or [float("nan")]


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm, run in runs.items() for claim in _judge_arm(arm, lengths(run))]


def _judge_arm(arm: str, cells: pd.DataFrame) -> list[Claim]:
    expected, low, high = EXPECTED[arm.split(", ")[1]]
    largest = cells.p.max()
    where = {FITTED: "where the training error is first 0 (if it ever is)", ENDED: "after all steps"}
    return [
        judge(
            f"{slug(arm)}-{slug(what)}",
            f"{arm}: r(p = {largest:g}) / r(0) {where[what]}, mean over H and m",
            BEYOND,
            source="beyond Nagarajan & Kolter",
            paper=f"expected: {expected}",
            measured=_judged_ratios(cells, what, largest),
            low=low,
            high=high,
        )
        for what in (FITTED, ENDED)
    ]


def _table(runs: Runs) -> Table:
    columns = ("arm", "H", "m", "p", "r, first fit", "r, all steps", "test error")
    table = Table(*columns, title="Mean ± s.d. over the seeds that have a number")
    for arm, run in runs.items():
        for (hidden, m, p), group in lengths(run).groupby(["H", "m", "p"]):
            numbers = [mean_and_spread(group[what]) for what in (FITTED, ENDED)]
            error = f"{mean_and_spread(100 * group['error/test'])} %"
            table.add_row(arm, f"{hidden:,}", f"{m:,}", f"{p:g}", *numbers, error)
    return table


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(3.6 * len(runs), 6.8), layout="constrained")
    axes = picture.subplots(2, len(runs), squeeze=False, sharex=True, sharey="row")
    for (above, below), (arm, run) in zip(axes.T, runs.items()):
        cells = lengths(run)
        _draw_ratios(above, relative(cells, FITTED))
        _draw_ratios(below, relative(cells, ENDED))
        above.set_title(arm)
        below.set_xlabel("p")
    axes[0, 0].set_ylabel("r(p) / r(0) at the first fit")
    axes[1, 0].set_ylabel("r(p) / r(0) after all steps")
    lines, labels = axes[0, 0].get_legend_handles_labels()
    picture.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=9)
    return picture


def _draw_ratios(axis: Axes, ratios: pd.DataFrame) -> None:
    """Draw a line for each H and m, mean ± standard deviation over the seeds that have a number."""
    axis.axhline(1, color=GREY, linewidth=1, linestyle=":")
    hidden = [int(units) for units in ratios.index.unique("H")]
    for line, units in zip(("-", "--", ":"), sorted(hidden), strict=False):
        of_units = pd.DataFrame(ratios.xs(units, level="H"))
        examples = sorted(int(m) for m in of_units.index.unique("m"))
        for color, m in zip(COLORS, examples, strict=False):
            found = pd.DataFrame(of_units.xs(m, level="m")).dropna(axis=1, how="all")
            spread = found.std(ddof=1).fillna(0)
            style: dict[str, Any] = {"color": color, "linestyle": line, "marker": "o", "markersize": 3.5, "capsize": 2}
            axis.errorbar(found.columns, found.mean(), spread, label=f"H = {units:,}, m = {m:,}", **style)
    plain(axis)


def _grid(hidden: Sequence[int], examples: Sequence[int], levels: Sequence[float]) -> dict[str, Sequence[object]]:
    return SETTINGS[MARGIN].grid(hidden, examples, **{P: levels})


FIGURE = Figure(
    name="nagarajan-label-noise",
    title="Does label noise or smoothing lengthen the way from the initialization? (beyond Nagarajan & Kolter)",
    config=dict.fromkeys(ARMS, CONFIG),
    scales={
        "ci": Scale(
            seeds=2,
            options=["--data.source", "sample", "--trainer.max_steps", "1500"],
            grids={arm: _grid([40], [64, 256], [0.0, 0.2]) for arm in list(ARMS)[2:]},
        ),
        "paper": Scale(
            seeds=10,
            grids={arm: _grid([40], [64, 256, 1024], [0.0, 0.1, 0.2]) for arm in ARMS},
        ),
        # For GPUs.
        "full": Scale(
            seeds=10,
            options=["--trainer.max_steps", "100000"],
            grids={arm: _grid([1280, 320, 80], [64, 256, 1024, 4096], [0.0, 0.05, 0.1, 0.2, 0.4]) for arm in ARMS},
        ),
    },
    arms=ARMS,
    table=_table,
    claims=_claims,
    draw=_draw,
)
