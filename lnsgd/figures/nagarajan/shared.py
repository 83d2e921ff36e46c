"""Shared parts of the figures on Nagarajan and Kolter: settings, distances from sweeps, power laws, drawing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.ticker import NullLocator
from rich.table import Table

from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, plain
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep import load

# From dark to light, for a quantity with an order.
COLORS = (BLUE, PURPLE, GREEN, ORANGE, GREY)

_WIDTHS, _SUBSET, _SEED = "model.net.widths", "data.subset", "seed_everything"
_DISTANCE = "distance_from_init"


class Setting(NamedTuple):
    """One of the paper's ways to train, which is an arm of a figure.

    Attributes:
        config: Its config.
        options: Options that differ from the config.
    """

    config: str
    options: Sequence[str] = ()

    def grid(
        self, hidden: Sequence[int], examples: Sequence[int] = (), **more: Sequence[Any]
    ) -> dict[str, Sequence[Any]]:
        """Return a grid over H units in each hidden layer, m training examples if given, and ``more``."""
        inputs, *layers, outputs = read_setting(shipped_config(self.config), _WIDTHS)
        networks = [[inputs, *[units] * len(layers), outputs] for units in hidden]
        return {_WIDTHS: networks, **({_SUBSET: examples} if examples else {}), **more}


MARGIN, A, B, C = (
    "MNIST, cross-entropy, margin 10",
    "MNIST, squared loss (A)",
    "CIFAR-10, squared loss (B)",
    "MNIST, squared loss (C)",
)
SQUARED = "figures/nagarajan-squared.yaml"
SETTINGS = {
    MARGIN: Setting("figures/nagarajan-margin.yaml"),
    A: Setting(SQUARED),
    B: Setting("figures/nagarajan-cifar10.yaml"),
    C: Setting(
        SQUARED,
        ["--model.optimizer.lr", "1.0", "--model.optimizer.momentum", "0.0"],
    ),
}


def distances(run: RunFolder, settings: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return the cells of an arm with their final measures, a row each.

    Args:
        run: The folder of an arm that is a sweep.
        settings: Further options of the sweep to include, each with the name of its column.

    Returns:
        Columns ``H``, ``m`` and ``seed`` (where the arm varies them), those of ``settings``, ``status``, ``steps``,
        and every final measure by its name, with the distance ‖θ − θ₀‖₂ named ``r``. The generalization errors, test
        minus training set, are ``gap/error`` and ``gap/loss``. The numbers of a cell that did not satisfy its stopping
        rule, or diverged, are NaN.
    """
    cells = load(run.path)
    named = {_SUBSET: "m", _SEED: "seed", _DISTANCE: "r", **(settings or {})}
    cells = cells.rename(columns=named)
    if _WIDTHS in cells:
        cells["H"] = [layer_widths[1] for layer_widths in cells[_WIDTHS]]
    for name in ("error", "loss"):
        if f"{name}/train" in cells and f"{name}/test" in cells:
            cells[f"gap/{name}"] = cells[f"{name}/test"] - cells[f"{name}/train"]
    numbers = [name for name in cells.columns if name == "r" or "/" in name or name.endswith("_product")]
    cells.loc[cells.status != "done", numbers] = np.nan
    return cells


class Fits(NamedTuple):
    """Power laws, one for each group of cells.

    Attributes:
        exponents: The exponent of each group; NaN if some point of the group has no number.
        factors: The factor of each group, likewise.
    """

    exponents: list[float]
    factors: list[float]


def power_laws(cells: pd.DataFrame, x: str, y: str, groups: Sequence[str]) -> Fits:
    """Fits y = factor · x^exponent by least squares of the logarithms, to each group of cells.

    Args:
        cells: A table with a row per cell.
        x: Column that is raised to the exponent.
        y: Column that is fitted.
        groups: Columns in which the cells of a group agree.

    Raises:
        ValueError: a group has fewer than two different x.
    """
    exponents, factors = [], []
    for key, group in cells.groupby(list(groups)):
        if group[x].nunique() < 2:
            raise ValueError(f"a power law in {x} needs two values of it; there is one for {dict(zip(groups, key))}")
        positive = group[y].astype(float).where(group[y] > 0)  # NaN elsewhere, as it has no logarithm
        slope, offset = np.polyfit(np.log(group[x].astype(float)), np.log(positive), 1)
        exponents.append(float(slope))
        factors.append(float(np.exp(offset)))
    return Fits(exponents, factors)


def seed_exponents(
    cells: pd.DataFrame, x: str, y: str, other: str, combine: Callable[[Sequence[float]], float]
) -> list[float]:
    """Fits y = factor · x^exponent at each value of ``other``, and combines the exponents of each seed.

    Networks of one seed share data and noise, so that only the seeds are independent.

    Args:
        cells: A table with a row per cell, with a column ``seed``.
        x: Column that is raised to the exponent.
        y: Column that is fitted.
        other: Column with a fit for each value.
        combine: Makes one number of the exponents of a seed, such as their mean or largest; NaN if one of them is.

    Returns:
        A number for each seed, in increasing order of the seeds.
    """
    return [float(combine(power_laws(of_seed, x, y, [other]).exponents)) for _, of_seed in cells.groupby("seed")]


def smallest_ratio(cells: pd.DataFrame, x: str, y: str, other: str) -> list[float]:
    """Divide y at the largest x by y at the smallest, and return the smallest ratio over ``other`` for each seed.

    Args:
        cells: A table with a row per cell, with a column ``seed``.
        x: Column whose ends are compared.
        y: Column that is divided.
        other: Column with a ratio for each value.

    Returns:
        A number for each seed, in increasing order of the seeds; NaN if a cell has no number.
    """
    table = cells.pivot(index=["seed", other], columns=x, values=y)
    ratios = table[cells[x].max()] / table[cells[x].min()]
    return [float(np.min(of_seed.to_numpy())) for _, of_seed in ratios.groupby("seed")]


def mean_and_spread(values: Iterable[float]) -> str:
    """Format the mean and standard deviation of the finite values; ``–`` if there are none."""
    found = np.array([value for value in values if np.isfinite(value)])
    if not len(found):
        return "–"
    spread = f" ± {found.std(ddof=1):.2g}" if len(found) > 1 else ""
    return f"{found.mean():.3g}{spread}"


def draw_lines(
    axis: Axes, cells: pd.DataFrame, x: str, y: str, by: str, label: str, colors: Sequence[str] = COLORS, **line: Any
) -> None:
    """Draw lines of y against x, one for each value of ``by``, with mean ± standard deviation over seeds.

    Cells without a number are left out, so that some lines may have fewer points than others.

    Args:
        axis: The axes to draw on.
        cells: A table with a row per cell.
        x: Column of the horizontal axis.
        y: Column of the vertical axis.
        by: Column with a line for each value; the values in increasing order take ``colors`` in order.
        label: Label in the legend, with ``{}`` for the value.
        colors: At least as many as there are values.
        line: Further options of the lines.
    """
    for color, (value, group) in zip(colors, cells.groupby(by), strict=False):
        of_x = group.dropna(subset=[y]).groupby(x)[y]
        mean, spread = of_x.mean(), of_x.std(ddof=1).fillna(0)
        options = {"color": color, "marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.4, **line}
        axis.errorbar(mean.index, mean, spread, label=label.format(value), **options)
    axis.legend(fontsize=8)
    plain(axis)


def logarithmic(axis: XAxis | YAxis, marks: Iterable[float]) -> None:
    """Make an axis logarithmic, with ticks only at the given numbers."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_ticks(found := sorted(set(marks)), [f"{mark:,g}" for mark in found])
    axis.set_minor_locator(NullLocator())


def status_table(runs: Runs, by: Sequence[str], settings: Mapping[str, str] | None = None) -> Table:
    """Tabulate distances and steps of each kind of cell, mean ± standard deviation over seeds.

    The last column counts the cells that reached the step limit before their stopping rule was satisfied.

    Args:
        runs: The arms, each a sweep.
        by: Columns of `distances` that distinguish kinds of cells.
        settings: See `distances`.
    """
    table = Table("arm", *by, "r", "steps", "test error", "not stopped by the rule", title="At the end of training")
    for arm, run in runs.items():
        cells = distances(run, settings)
        for key, group in cells.groupby(list(by)):
            error = mean_and_spread(100 * group["error/test"])
            left = (group.status != "done").sum()
            row = [mean_and_spread(group.r), mean_and_spread(group.steps), f"{error} %", str(left) if left else ""]
            table.add_row(arm, *(f"{value:,}" for value in key), *row)
    return table
