"""Measured numbers over training: mean and standard deviation over runs that differ only in the seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lnsgd.records import metrics as metrics_record
from lnsgd.records.measures import QUANTITY, STEP, VALUE, with_weights_in_names

# The most curves in one plot, since more cannot be distinguished; they are evenly spread over their order.
MOST_CURVES = 8


@dataclass(frozen=True)
class Curve:
    """A number over training.

    Attributes:
        label: The group of runs; empty if there is only one curve.
        steps: SGD steps taken, (T,), increasing.
        mean: Mean over runs, (T,); NaN where no run has the number.
        std: Standard deviation over runs, (T,); NaN where fewer than two runs have it.
    """

    label: str
    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Trajectory:
    """A number over training, for one run or for groups of runs.

    Attributes:
        name: ``measure/split/layer``, without the empty ones.
        layer: The module or tensor; empty for the whole network.
        curves: One for each group.
    """

    name: str
    layer: str
    curves: Sequence[Curve]


def trajectories(
    rows: pd.DataFrame, units: "pd.Series[Any]", groups: Mapping[object, str], value: str = VALUE
) -> list[Trajectory]:
    """Return the trajectories in a table of measurements, in the order in which they were measured first.

    Args:
        rows: Rows of ``measures.parquet``, or of another table with these columns; values that are not finite do not
            count.
        units: For each row the network that was measured: a replica, a cell.
        groups: For each unit that counts, the label of its group.
        value: The column that is drawn.
    """
    rows = with_weights_in_names(rows).assign(label=units.map(groups)).dropna(subset="label")
    rows = rows.assign(drawn=rows[value].where(np.isfinite(rows[value])))
    keys = [*QUANTITY, "label"]
    statistics = rows.groupby([*keys, STEP], sort=False)["drawn"].agg(["mean", "std"]).reset_index()
    order = list(dict.fromkeys(groups.values()))
    found: dict[tuple[str, str, str], dict[str, Curve]] = {}
    for key, part in statistics.groupby(keys, sort=False):
        measure, split, layer, label = map(str, key)
        part = part.sort_values(STEP)
        curve = Curve(label, *(part[name].to_numpy(float) for name in (STEP, "mean", "std")))
        found.setdefault((measure, split, layer), {})[label] = curve
    return [
        Trajectory(joined(name), name[2], [curves[label] for label in order if label in curves])
        for name, curves in found.items()
    ]


def logged(metrics: pd.DataFrame, known: Sequence[str]) -> list[Trajectory]:
    """Return the trajectories in a ``metrics.csv`` that are not measures.

    Args:
        metrics: Rows of the file; a replicated run has the columns ``name/mean`` and ``name/std``, or
            ``name/group/mean``.
        known: Names of the measured trajectories.
    """
    found: dict[str, list[Curve]] = {}
    for column in metrics.columns:
        base = column.removesuffix("/mean")
        if column in (metrics_record.STEP, metrics_record.EPOCH) or column.endswith(("/std", "/stderr")):
            continue
        name, _, group = base.rpartition("/") if "=" in base.rpartition("/")[2] else (base, "", "")
        if name in known:
            continue
        rows = metrics[metrics[column].notna()]
        if rows.empty or not pd.api.types.is_numeric_dtype(rows[column]):
            continue
        spread = rows[f"{base}/std"] if column != base and f"{base}/std" in rows else rows[column] * np.nan
        numbers = (rows[metrics_record.STEP], rows[column], spread)
        found.setdefault(name, []).append(Curve(label_of(group), *(x.to_numpy(float) for x in numbers)))
    return [Trajectory(name, "", curves) for name, curves in found.items()]


def joined(parts: Sequence[str]) -> str:
    """Join the parts of a name, without the empty ones."""
    return "/".join(part for part in parts if part)


def label_of(group: str) -> str:
    """Return ``noise=0.1,lr=0.01`` with spaces."""
    return group.replace("=", " = ").replace(",", ", ")


def shown_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels that are plotted: if there are too many, the first, the last, and some between."""
    if len(labels) <= MOST_CURVES:
        return list(labels)
    return [labels[i] for i in np.linspace(0, len(labels) - 1, MOST_CURVES).round().astype(int)]
