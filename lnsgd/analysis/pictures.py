"""Pictures of an analysis."""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lnsgd.analysis.analyses import Analysis, ToDraw
from lnsgd.records.measures import MEASURE, STDERR, WHOLE, headlines, with_weights_in_names
from lnsgd.runs.writing import whole_file

# Splits of data differ in dashes, so that curves that coincide can be told apart.
_DASHES = ("-", "--", ":")

# Number of panels in a row, and of lines in a panel that a legend tells apart.
_PANELS_IN_ROW, _LEGEND_LINES = 3, 8

# Layers of a measure that has more of them than this are not drawn; their numbers are in the table.
_DRAWN_LAYERS = 24

# Measures that say how well another measure was taken; they are not drawn.
_NOT_DRAWN = ("top_eigenvalue_residual",)


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Draw trajectories over steps, bars by site of single checkpoints, and the pictures of measurers.

    Args:
        analysis: The results of the analysis.
        folder: Folder of the PNG files.

    Returns:
        The files.
    """
    table = with_weights_in_names(analysis.table).assign(source=_source_names(analysis))
    table["file"] = table.checkpoint.map(_file_names([str(name) for name in table.checkpoint.unique()]))
    written = []
    several = table.groupby("source")["step"].transform("nunique") > 1
    if several.any():
        written.append(save_png(trajectories(table[several]), folder / "trajectories.png"))
    sites = table[~several & ~table.layer.isin(WHOLE) & (table.split != "") & table.measure.str.endswith("_fraction")]
    if len(sites):
        written.append(save_png(bars(sites), folder / "sites.png"))
    for number, found in enumerate(analysis.to_draw):
        written += _draw_pictures(found, number, folder)
    return written


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG file, and return the file."""
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=150)
    return path


def _source_names(analysis: Analysis) -> list[str]:
    """Return the name of the checkpoint set of each row; equal names get numbers."""
    of_path: dict[str, str] = {}
    for number, one in enumerate(analysis.sets):
        is_repeated = sum(other.name == one.name for other in analysis.sets) > 1
        for checkpoint in one.checkpoints:
            of_path[str(checkpoint.path)] = f"{one.name} ({number + 1})" if is_repeated else one.name
    return [of_path[row["checkpoint"]] for row in analysis.rows]


def _file_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the name of each file; the whole path for files of equal names."""
    names = [Path(path).name for path in paths]
    return {path: path if names.count(name) > 1 else name for path, name in zip(paths, names)}


def _draw_pictures(found: ToDraw, number: int, folder: Path) -> list[Path]:
    """Draw the results of one measurer for one network."""
    measurer, replica, _, tensors = found.taken
    checkpoint = found.checkpoint.path
    network = checkpoint.stem.replace("=", "") + (f"_replica{replica}" if replica else "")
    files = []
    for picture in measurer.pictures(tensors):
        splits = ", ".join(measurer.measured_splits)
        picture.figure.suptitle(f"{checkpoint.name}, {splits} data", fontsize=9)
        files.append(save_png(picture.figure, folder / f"{picture.group}_{number}_{network}_{picture.name}.png"))
    return files


def trajectories(table: pd.DataFrame) -> Figure:
    """Draw a panel for each measure over steps: mean and standard deviation over replicas, or value and standard error.

    Args:
        table: Rows of an analysis, with columns ``source`` (checkpoint set) and ``file`` (name of the checkpoint).
    """
    panels = list(_panels(table))
    figure, axes = _grid(len(panels))
    _name_what_all_share(figure, table)
    for axis, (measure, rows) in zip(axes, panels):
        drawn, splits = rows[["source", "layer"]].apply(tuple, axis=1), list(rows.split.unique())
        colors = {key: f"C{number}" for number, key in enumerate(drawn.unique())}
        for label, line in _lines(rows, ["source", "split", "layer"]):
            x, mean, error = _line(line)
            color, dashes = colors[drawn[line.index[0]]], _DASHES[splits.index(line.split.iloc[0])]
            yerr = yerror_or_none(error)
            axis.errorbar(
                x, mean, yerr, color=color, ls=dashes, marker=".", markersize=4, capsize=2, linewidth=1, label=label
            )
        axis.set_title(measure, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        _finish(axis)
    return figure


def _lines(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Split rows by some columns, and label each part by those columns that differ between parts."""
    differ = [name for name in names if rows[name].nunique() > 1]
    for key, line in rows.groupby(names, sort=False):
        yield ", ".join(str(value) for name, value in zip(names, key) if name in differ and value), line


def _name_what_all_share(figure: Figure, table: pd.DataFrame) -> None:
    """Title a figure with the run and the file that it shows, if there is one only, since no legend names it then."""
    shared = [table[name].iloc[0] for name in ("source", "file") if table[name].nunique() == 1]
    if shared:
        figure.suptitle(", ".join(shared), fontsize=9)


def _panels(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each measure that are drawn, see `lnsgd.records.measures.headlines`."""
    for measure, rows in headlines(table[~table.measure.isin(_NOT_DRAWN)], _DRAWN_LAYERS).groupby(MEASURE, sort=False):
        yield str(measure), rows


def _line(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, means over replicas, and their spread; for a single network its standard error."""
    steps = rows.groupby("step")
    mean, spread = steps["value"].mean(), steps["value"].std(ddof=1)
    error = spread if rows.replica.nunique() > 1 else steps[STDERR].mean()
    return mean.index.to_numpy(dtype=float), mean.to_numpy(dtype=float), error.to_numpy(dtype=float)


def yerror_or_none(error: np.ndarray) -> np.ndarray | None:
    """Return the lengths of error bars; ``None`` if all numbers are exact."""
    return None if np.isnan(error).all() else np.nan_to_num(error)


def bars(table: pd.DataFrame) -> Figure:
    """Draw a panel for each measure with a bar for each site, by checkpoint and split: means over replicas.

    Args:
        table: Rows of sites, with columns ``source`` (checkpoint set) and ``file`` (name of the checkpoint).
    """
    panels = list(table.groupby("measure", sort=False))
    sites = list(dict.fromkeys(table.layer))
    figure, axes = _grid(len(panels), width=max(4.0, 0.28 * len(sites)), across=1)
    _name_what_all_share(figure, table)
    for axis, (measure, rows) in zip(axes, panels):
        groups = list(_lines(rows, ["source", "file", "split"]))
        width = 0.8 / len(groups)
        for number, (label, group) in enumerate(groups):
            of_site = group.groupby("layer")["value"]
            mean, spread = of_site.mean().reindex(sites), of_site.std(ddof=1).reindex(sites)
            place = np.arange(len(sites)) + (number - (len(groups) - 1) / 2) * width
            error = yerror_or_none(spread.to_numpy(dtype=float))
            axis.bar(place, mean.to_numpy(dtype=float), width, yerr=error, capsize=2, label=label)
        axis.set_title(str(measure), fontsize=9)
        axis.set_xticks(range(len(sites)), sites, rotation=60, ha="right", fontsize=7)
        _finish(axis)
    return figure


def _grid(panels: int, width: float = 3.6, across: int = _PANELS_IN_ROW) -> tuple[Figure, Sequence[Axes]]:
    columns = min(panels, across)
    rows = ceil(panels / columns)
    figure = Figure(figsize=(width * columns, 2.8 * rows), layout="constrained")
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in axes[panels:]:
        unused.set_visible(False)
    return figure, axes[:panels]


def _finish(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)
    labels = axis.get_legend_handles_labels()[1]
    if 1 < len(labels) <= _LEGEND_LINES:
        axis.legend(fontsize=6, frameon=False)


def draw_line(path: pd.DataFrame, names: tuple[str, str]) -> Figure:
    """Draw loss and error on the straight line between two networks: means and standard deviations over pairs.

    Args:
        path: Table of the line, see `lnsgd.analysis.Comparison`.
        names: Names of the networks at t = 0 and t = 1.
    """
    shown = [name for name in ("loss", "error") if name in path and path[name].notna().any()]
    figure, axes = _grid(len(shown))
    for axis, name in zip(axes, shown):
        for split, rows in path.groupby("split", sort=False):
            at = rows.groupby("t")[name]
            error = yerror_or_none(at.std(ddof=1).to_numpy(dtype=float))
            axis.errorbar(at.mean().index, at.mean(), error, marker=".", capsize=2, linewidth=1, label=str(split))
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(f"t, from {names[0]} (0) to {names[1]} (1)", fontsize=8)
        _finish(axis)
    return figure
