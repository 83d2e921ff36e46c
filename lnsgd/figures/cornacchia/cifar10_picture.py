"""The picture of ResNet-20 on CIFAR-10: accuracy and active units; below them curvature and clusters, if measured."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import MaxNLocator

from lnsgd.figures.cornacchia.cifar10_runs import (
    LINES,
    PAPER_ACTIVE,
    STANDARD,
    accuracy,
    active_percent,
    has_curvature,
    is_papers_run,
    trace_by_stage,
    validation_images,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import epochs, measured
from lnsgd.figures.framework.style import draw_band, label_beside, mark_paper, plain, seeds_title

# Below the accuracy: measures over training, on the training set.
BELOW = {
    "hessian_trace": "Trace of the Hessian",
    "top_eigenvalue_1": "Largest eigenvalue",
    "class_variance_ratio": "Variance within / between classes",
}


def draw(runs: Runs) -> Picture:
    """Draw the picture."""
    curved = all(has_curvature(run) for run in runs.values())
    picture = Picture(figsize=(12, 8.5 if curved else 5), layout="constrained")
    rows = picture.add_gridspec(1 + curved, 1, height_ratios=[1.4, 1][: 1 + curved])
    top = rows[0].subgridspec(1, 2, width_ratios=[1, 1.5])
    left, right = picture.add_subplot(top[0]), picture.add_subplot(top[1])
    _draw_accuracy(left, runs)
    _draw_active(right, runs)
    if curved:
        below = rows[1].subgridspec(1, len(BELOW) + 1)
        _draw_below([picture.add_subplot(below[place]) for place in range(len(BELOW) + 1)], runs)
    handles, labels = left.get_legend_handles_labels()
    picture.legend(
        handles[::-1],
        labels[::-1],
        title=seeds_title(len(accuracy(runs[STANDARD]))),
        loc="outside lower center",
        ncols=len(LINES),
        frameon=False,
    )
    for axis in picture.axes:
        plain(axis)
    return picture


def _draw_accuracy(axis: Axes, runs: Runs) -> None:
    for arm in reversed(LINES):  # the paper's arms are drawn above the other
        curves = measured(runs[arm], "error", "val")
        label = arm if arm in PAPER_ACTIVE else f"{arm} (not in the paper)"
        draw_band(axis, epochs(runs[arm], curves.steps), 100 * (1 - curves.values), label=label, **LINES[arm])
    title = f"Accuracy, {validation_images(runs[STANDARD])}"
    axis.set(xlabel="epoch", ylabel="accuracy (%)", title=title, xlim=(0, None), ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    if is_papers_run(runs[STANDARD]):
        axis.set_ylim(70, 95)  # the first epochs are below 70 %
        mark_paper(axis, 92, "paper:\nslightly\nabove\n92 %", "black")


def _draw_active(axis: Axes, runs: Runs) -> None:
    for arm in reversed(LINES):
        _draw_sites(axis, active_percent(runs[arm]).to_numpy(), LINES[arm])
    sites = active_percent(runs[STANDARD]).columns.tolist()
    _name_stages(axis, sites)
    _mark_paper(axis, len(sites), is_papers_run(runs[STANDARD]))
    axis.set(ylabel="active units (%)", title="Active units of every site at the end, training set")
    axis.set_ylim(0, 1.1 * axis.get_ylim()[1])  # room for the stages' names


def _draw_below(axes: list[Axes], runs: Runs) -> None:
    """Draw curvature and clusters over training, and the trace of each stage at the end."""
    *over_training, by_stage = axes
    for axis, (measure, title) in zip(over_training, BELOW.items()):
        for arm in reversed(LINES):
            curves = measured(runs[arm], measure, "train")
            at = epochs(runs[arm], curves.steps)
            draw_band(axis, at, curves.values, **LINES[arm])
            if len(curves.values) == 1:  # otherwise the band is the spread over seeds, which the errors are part of
                axis.errorbar(at, curves.values[0], curves.stderrs[0], fmt="none", ecolor=LINES[arm]["color"])
        axis.set(title=title, xlabel="epoch", yscale="log")
        axis.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    for place, arm in enumerate(LINES):
        stages = trace_by_stage(runs[arm])
        means = stages.to_numpy().mean(axis=0)
        by_stage.bar(np.arange(len(means)) + 0.27 * (place - 1), means, 0.25, color=LINES[arm]["color"])
        by_stage.set_xticks(range(len(means)), stages.columns, fontsize=8)
    by_stage.set(title="Trace by stage at the end", yscale="log")


def _draw_sites(axis: Axes, active: np.ndarray, line: Mapping[str, Any]) -> None:
    """Draw the mean over seeds of the active units (R, 19) of each site, with bars of one standard deviation."""
    depth = np.arange(1, active.shape[1] + 1)
    spread = active.std(axis=0, ddof=1) if len(active) > 1 else None
    axis.errorbar(depth, active.mean(axis=0), yerr=spread, marker="o", markersize=4, capsize=2, **line)


def _name_stages(axis: Axes, sites: list[str]) -> None:
    """Draw a tick for each site, and a band and a name for each stage."""
    stages = [site.split(".")[1] if site.count(".") > 1 else "stem" for site in sites]
    for number, stage in enumerate(dict.fromkeys(stages)):
        first = stages.index(stage) + 0.5
        last = first + stages.count(stage)
        if number % 2:
            axis.axvspan(first, last, color="black", alpha=0.05, linewidth=0)
        axis.annotate(
            stage,
            ((first + last) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
            color="dimgrey",
        )
    axis.set(xlim=(0, len(sites) + 0.5), xticks=range(1, len(sites) + 1), xlabel="activation site, by depth")
    axis.tick_params(axis="x", labelsize=8)


def _mark_paper(axis: Axes, last: int, papers_run: bool) -> None:
    """Mark the paper's numbers as stars at the last site, noting if they are of longer training."""
    for arm, number in PAPER_ACTIVE.items():
        color = LINES[arm]["color"]
        axis.plot(last, number, "*", color=color, markersize=15, markeredgecolor="black", clip_on=False, zorder=3)
        label = f"paper\n{number} %" if papers_run else f"paper, fully\ntrained\n{number} %"
        label_beside(axis, number, label, color)
