"""Reads what runs left on disk."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from lnsgd.run_folder import RunFolder


class Curve(NamedTuple):
    """A measured number over training: one entry per measurement."""

    epochs: np.ndarray
    values: np.ndarray
    stderrs: np.ndarray


def measured(run: RunFolder, measure: str, split: str = "", layer: str | None = None) -> Curve:
    """A measure of a run over training; the first layer that has it where none is named.

    Raises:
        ValueError: the run has no such measurement.
    """
    table = pd.read_parquet(run.measures)
    rows = table[(table["measure"] == measure) & (table["split"] == split)]
    rows = rows[rows["layer"] == (rows["layer"].iloc[0] if layer is None and len(rows) else layer)]
    if rows.empty:
        raise ValueError(f"{run.measures} has no {measure} on split {split!r}")
    rows = rows.sort_values("step")
    # Epochs are numbered from 0: the last row, at the end of training, stands for one epoch more.
    per_epoch = rows["step"].max() / max(rows["epoch"].max() + 1, 1)
    return Curve((rows["step"] / per_epoch).to_numpy(), rows["value"].to_numpy(), rows["stderr"].to_numpy())


def logged(run: RunFolder, name: str) -> float:
    """The last value of a logged number.

    Raises:
        ValueError: the run logged no such number.
    """
    table = pd.read_csv(run.metrics)
    if name not in table or table[name].dropna().empty:
        raise ValueError(f"{run.metrics} has no {name}")
    return float(table[name].dropna().iloc[-1])
