"""Measured numbers over training: mean and standard deviation over runs that differ in nothing but the seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# More curves in one plot cannot be told apart; so many of them are shown, evenly spread over their order.
MOST_CURVES = 8


@dataclass(frozen=True)
class Curve:
    """A number over training.

    Attributes:
        label: Whose it is; empty where there is one curve only.
        steps: SGD steps taken, (T,), increasing.
        mean: Mean over runs, (T,); NaN where none has the number.
        std: Standard deviation over runs, (T,); NaN where fewer than two have it.
    """

    label: str
    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Trajectory:
    """A measured number, of one run or of groups of runs.

    Attributes:
        name: ``measure/split/layer``, without the empty ones.
        layer: For which module or tensor; empty for the whole network.
        curves: One for each group.
    """

    name: str
    layer: str
    curves: Sequence[Curve]


def trajectories(rows: pd.DataFrame, groups: Mapping[object, str]) -> list[Trajectory]:
    """The trajectories in a table of measurements, in the order in which they were measured first.

    Args:
        rows: With columns unit, step, split, measure, layer, value; values that are not finite do not count.
        groups: For each unit (a replica, a cell) that counts, the label of its group.
    """
    rows = rows.assign(label=rows["unit"].map(groups)).dropna(subset="label")
    rows = rows.assign(value=rows["value"].where(np.isfinite(rows["value"])))
    keys = ["measure", "split", "layer", "label"]
    statistics = rows.groupby([*keys, "step"], sort=False)["value"].agg(["mean", "std"]).reset_index()
    order = list(dict.fromkeys(groups.values()))
    found: dict[tuple[str, str, str], dict[str, Curve]] = {}
    for (measure, split, layer, label), part in statistics.groupby(keys, sort=False):
        part = part.sort_values("step")
        curve = Curve(label, *(part[name].to_numpy(float) for name in ("step", "mean", "std")))
        found.setdefault((measure, split, layer), {})[label] = curve
    return [
        Trajectory(joined(name), name[2], [curves[label] for label in order if label in curves])
        for name, curves in found.items()
    ]


def logged(metrics: pd.DataFrame, known: Sequence[str]) -> list[Trajectory]:
    """The trajectories in a ``metrics.csv`` that are not among those of the measures.

    Args:
        metrics: Its rows; columns of replicated runs are ``name/mean`` and ``name/std``, or ``name/group/mean``.
        known: Names of the measured trajectories.
    """
    found: dict[str, list[Curve]] = {}
    for column in metrics.columns:
        base = column.removesuffix("/mean")
        if column in ("step", "epoch") or column.endswith(("/std", "/stderr")):
            continue
        name, _, group = base.rpartition("/") if "=" in base.rpartition("/")[2] else (base, "", "")
        if name in known:
            continue
        rows = metrics[metrics[column].notna()]
        if rows.empty or not pd.api.types.is_numeric_dtype(rows[column]):
            continue
        spread = rows[f"{base}/std"] if column != base and f"{base}/std" in rows else rows[column] * np.nan
        numbers = (rows["step"], rows[column], spread)
        found.setdefault(name, []).append(Curve(label_of(group), *(x.to_numpy(float) for x in numbers)))
    return [Trajectory(name, "", curves) for name, curves in found.items()]


def joined(parts: Sequence[str]) -> str:
    """A name of several parts, without the empty ones."""
    return "/".join(part for part in parts if part)


def label_of(group: str) -> str:
    """``noise=0.1,lr=0.01`` as it is shown."""
    return group.replace("=", " = ").replace(",", ", ")


def shown_labels(labels: Sequence[str]) -> list[str]:
    """Of too many labels those that are plotted: the first, the last, and some between."""
    if len(labels) <= MOST_CURVES:
        return list(labels)
    return [labels[i] for i in np.linspace(0, len(labels) - 1, MOST_CURVES).round().astype(int)]
