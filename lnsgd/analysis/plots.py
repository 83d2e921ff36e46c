"""Pictures of an analysis."""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lnsgd import measures
from lnsgd.analysis.analyze import Analysis, Spectrum
from lnsgd.callbacks import pictures

# Splits of data differ in dashes, so that curves that lie on each other can be told apart.
_DASHES = ("-", "--", ":")

# Panels in a row, and the lines of a panel that are told apart in its legend.
_ACROSS, _LEGEND = 3, 8

# A measure of this many layers is drawn as a mean over them is: not at all; each has its row in the table.
_LAYERS = 24

# What says how well another measure was taken, and is not drawn.
_ASIDE = ("top_eigenvalue_residual",)


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Draws trajectories over steps, bars by site of single checkpoints, and spectra.

    Args:
        analysis: What was found.
        folder: Of the PNG files.

    Returns:
        The files.
    """
    table = analysis.table.assign(source=_names(analysis))
    table["file"] = table.checkpoint.map(_file_names(table.checkpoint.unique()))
    written = []
    several = table.groupby("source")["step"].transform("nunique") > 1
    if several.any():
        written.append(folder / "trajectories.png")
        pictures.save(trajectories(table[several]), written[-1])
    sites = table[~several & (table.layer != "") & (table.split != "") & table.measure.str.endswith("_fraction")]
    if len(sites):
        written.append(folder / "sites.png")
        pictures.save(bars(sites), written[-1])
    for number, spectrum in enumerate(analysis.spectra):
        written.append(folder / f"spectral_density_{number}_{_slug(spectrum)}.png")
        pictures.save(_density(spectrum), written[-1])
    return written


def _names(analysis: Analysis) -> list[str]:
    """Of which source each row is; equal names are told apart."""
    of_path: dict[str, str] = {}
    for number, source in enumerate(analysis.sources):
        twice = sum(other.name == source.name for other in analysis.sources) > 1
        for checkpoint in source.checkpoints:
            of_path[str(checkpoint.path)] = f"{source.name} ({number + 1})" if twice else source.name
    return [of_path[row["checkpoint"]] for row in analysis.rows]


def _file_names(paths: Sequence[str]) -> dict[str, str]:
    """Names of files; of those with the same name the whole path."""
    names = [Path(path).name for path in paths]
    return {path: path if names.count(name) > 1 else name for path, name in zip(paths, names)}


def _slug(spectrum: Spectrum) -> str:
    replica = f"_replica{spectrum.replica}" if spectrum.replica else ""
    return f"{spectrum.checkpoint.path.stem.replace('=', '')}{replica}_{spectrum.measure.split}"


def _density(spectrum: Spectrum) -> Figure:
    tensors = spectrum.tensors
    parameters, samples = tensors["of"].tolist()
    density = measures.SpectralDensity(tensors["nodes"], tensors["weights"], parameters, samples)
    figure = density.plot(tensors.get("top"), spectrum.measure.width)
    figure.suptitle(f"{spectrum.checkpoint.path.name}, {spectrum.measure.split} data", fontsize=9)
    return figure


def trajectories(table: pd.DataFrame) -> Figure:
    """A panel for each measure, over steps: mean over replicas with their standard deviation, or the standard error.

    Args:
        table: The rows of an analysis with columns ``source`` and ``file``, the checkpoint's name.
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
    """Rows that differ in some columns, apart, each labelled with those in which not all are the same."""
    differ = [name for name in names if rows[name].nunique() > 1]
    for key, line in rows.groupby(names, sort=False):
        yield ", ".join(str(value) for name, value in zip(names, key) if name in differ and value), line


def _name_what_all_share(figure: Figure, table: pd.DataFrame) -> None:
    """Titles a figure with what its legends do not say: of which run or file it is, where there is one."""
    shared = [table[name].iloc[0] for name in ("source", "file") if table[name].nunique() == 1]
    if shared:
        figure.suptitle(", ".join(shared), fontsize=9)


def _panels(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of the whole network where there are any, else of the layers if they are not too many."""
    for measure, rows in table[~table.measure.isin(_ASIDE)].groupby("measure", sort=False):
        whole = rows[rows.layer == ""]
        if len(whole):
            yield str(measure), whole
        elif rows.layer.nunique() <= _LAYERS:
            yield str(measure), rows


def _line(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, means over replicas, and their spread; of a single network the standard error."""
    steps = rows.groupby("step")
    mean, spread = steps["value"].mean(), steps["value"].std(ddof=1)
    error = spread if rows.replica.nunique() > 1 else steps["stderr"].mean()
    return mean.index.to_numpy(dtype=float), mean.to_numpy(dtype=float), error.to_numpy(dtype=float)


def yerror_or_none(error: np.ndarray) -> np.ndarray | None:
    """Lengths of error bars, none where all are exact."""
    return None if np.isnan(error).all() else np.nan_to_num(error)


def bars(table: pd.DataFrame) -> Figure:
    """A panel for each measure, with a bar for each site, by checkpoint and split: means over replicas.

    Args:
        table: Rows of sites, with columns ``source`` and ``file``, the checkpoint's name.
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


def _grid(panels: int, width: float = 3.6, across: int = _ACROSS) -> tuple[Figure, Sequence[Axes]]:
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
    if 1 < len(labels) <= _LEGEND:
        axis.legend(fontsize=6, frameon=False)


def line(path: pd.DataFrame, names: tuple[str, str]) -> Figure:
    """Loss and error on the straight line between two networks: means over pairs with their standard deviation.

    Args:
        path: See `lnsgd.analysis.compare.Comparison`.
        names: Of the networks at t = 0 and t = 1.
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
