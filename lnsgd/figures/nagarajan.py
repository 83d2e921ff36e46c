"""What all figures of Nagarajan and Kolter share: their settings, and how distances are read from sweeps and drawn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.ticker import NullLocator
from rich.table import Table

from lnsgd.figures.figure import Runs
from lnsgd.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, plain
from lnsgd.run_folder import RunFolder
from lnsgd.sweep import load

HIDDEN_LAYERS = 4

# From dark to light, for a quantity that has an order.
COLORS = (BLUE, PURPLE, GREEN, ORANGE, GREY)

_WIDTHS, _SUBSET, _SEED = "model.net.widths", "data.subset", "seed_everything"
_DISTANCE = "distance_from_init"


class Setting(NamedTuple):
    """One of the papers' ways to train, an arm of a figure.

    Attributes:
        source: Where it is found.
        config: Its config.
        options: What differs from that.
        inputs: Of the network.
        outputs: Of the network.
    """

    source: str
    config: str
    options: Sequence[str] = ()
    inputs: int = 784
    outputs: int = 10

    def grid(
        self, hidden: Sequence[int], examples: Sequence[int] = (), **more: Sequence[Any]
    ) -> dict[str, Sequence[Any]]:
        """Every combination of H units in each of the four hidden layers, m training examples, if any, and ``more``."""
        networks = [[self.inputs, *[units] * HIDDEN_LAYERS, self.outputs] for units in hidden]
        return {_WIDTHS: networks, **({_SUBSET: examples} if examples else {}), **more}


MARGIN, A, B, C = (
    "MNIST, cross-entropy, margin 10",
    "MNIST, squared loss (A)",
    "CIFAR-10, squared loss (B)",
    "MNIST, squared loss (C)",
)
SQUARED = "figures/nagarajan-squared.yaml"
SETTINGS = {
    MARGIN: Setting("Nagarajan & Kolter, Fig. 1", "figures/nagarajan-margin.yaml"),
    A: Setting("Nagarajan & Kolter, App. D, A", SQUARED),
    B: Setting("Nagarajan & Kolter, App. D, B", "figures/nagarajan-cifar10.yaml", inputs=3 * 32 * 32),
    C: Setting(
        "Nagarajan & Kolter, App. D, C",
        SQUARED,
        ["--model.optimizer.lr", "1.0", "--model.optimizer.momentum", "0.0"],
    ),
}


def distances(run: RunFolder, settings: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The cells of an arm that trained to the end, a row each.

    Args:
        run: The folder of an arm that is a sweep.
        settings: Further options of the sweep that are wanted, each with the name of its column.

    Returns:
        Columns ``H``, ``m`` and ``seed`` (where the arm varies them), those of ``settings``, ``status``, ``steps``,
        and every final measure by its name, of which ``r`` is the distance ‖θ − θ₀‖₂. The numbers of a cell that did
        not reach its stopping rule, or diverged, are NaN.
    """
    cells = load(run.path)
    named = {_SUBSET: "m", _SEED: "seed", _DISTANCE: "r", **(settings or {})}
    cells = cells.rename(columns=named)
    if _WIDTHS in cells:
        cells["H"] = [layer_widths[1] for layer_widths in cells[_WIDTHS]]
    numbers = [name for name in cells.columns if name == "r" or "/" in name or name.endswith("_product")]
    cells.loc[cells.status != "done", numbers] = np.nan
    return cells


class Fits(NamedTuple):
    """Power laws, one for each group of cells.

    Attributes:
        exponents: One for each group whose points all have a number; NaN for the others.
        factors: What it is multiplied by, likewise.
    """

    exponents: list[float]
    factors: list[float]


def power_laws(cells: pd.DataFrame, x: str, y: str, groups: Sequence[str]) -> Fits:
    """Fits y = factor · x^exponent by least squares of the logarithms, to each group of cells.

    Args:
        cells: A row for each.
        x: Column that is raised.
        y: Column that is fitted.
        groups: Columns in which the cells of a group agree.

    Raises:
        ValueError: a group with less than two different x.
    """
    exponents, factors = [], []
    for key, group in cells.groupby(list(groups)):
        if group[x].nunique() < 2:
            raise ValueError(f"no power of {x} can be fitted to one value of it: {dict(zip(groups, key))}")
        slope, offset = np.polyfit(np.log(group[x].astype(float)), np.log(group[y].astype(float)), 1)
        exponents.append(float(slope))
        factors.append(float(np.exp(offset)))
    return Fits(exponents, factors)


def mean_and_spread(values: Iterable[float]) -> str:
    """Mean ± standard deviation of what is finite, as printed."""
    found = np.array([value for value in values if np.isfinite(value)])
    if not len(found):
        return "–"
    spread = f" ± {found.std(ddof=1):.2g}" if len(found) > 1 else ""
    return f"{found.mean():.3g}{spread}"


def draw_lines(
    axis: Axes, cells: pd.DataFrame, x: str, y: str, by: str, label: str, colors: Sequence[str] = COLORS, **line: Any
) -> None:
    """Lines of y against x, one for each value of ``by``: mean ± standard deviation over seeds.

    Cells without a number are left out, so that a line may have fewer points than others.

    Args:
        axis: Where.
        cells: A row for each.
        x: Column.
        y: Column.
        by: Column; its values from small to large take ``colors`` from the first on.
        label: In the legend, with ``{}`` for the value.
        colors: As many as there are values, or more.
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
    """Makes an axis logarithmic, with marks at these numbers alone."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_ticks(found := sorted(set(marks)), [f"{mark:,g}" for mark in found])
    axis.set_minor_locator(NullLocator())


def status_table(runs: Runs, by: Sequence[str], settings: Mapping[str, str] | None = None) -> Table:
    """Distances and steps of each kind of cell, mean ± standard deviation over seeds, and how many reached the limit.

    Args:
        runs: The arms, each a sweep.
        by: Columns of `distances` that tell kinds of cells.
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
