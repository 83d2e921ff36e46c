"""Averages of the table of a sweep over its seeds."""

import json
from typing import Any

import pandas as pd

from lnsgd.records.cells import STATUS, TRAINED, measure_names, option_names
from lnsgd.sweep.grid import SEED


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Compute mean and standard deviation of the final measures over seeds.

    Args:
        table: The data frame that `load` returns.

    Returns:
        One row for each cell of the grid without its seed, in the order of the grid, with the columns: its options;
        ``status``, such as ``2 done, 1 diverged``; ``n``, the number of trained networks (``done`` or ``limit``) that
        are averaged; and for each measure the mean and, as ``…/std``, the sample standard deviation (n − 1), which is
        NaN for n < 2. Both are NaN if the measure of one of these networks is NaN.
    """
    options = [name for name in option_names(table) if name != SEED]
    measures = measure_names(table)
    keys = [json.dumps([row[name] for name in options], default=str) for _, row in table.iterrows()]
    rows = [_average(cells, options, measures) for _, cells in table.groupby(keys, sort=False)]
    deviations = [f"{name}/std" for name in measures]
    columns = [name for pair in zip(measures, deviations) for name in pair]
    return pd.DataFrame(rows, columns=[*options, STATUS, "n", *columns])


def _average(cells: pd.DataFrame, options: list[str], measures: list[str]) -> dict[str, Any]:
    trained = cells[cells.status.isin(TRAINED)]
    statuses = ", ".join(f"{number} {status}" for status, number in cells.status.value_counts().items())
    values = trained[measures].astype(float)
    return {
        **{name: cells[name].iloc[0] for name in options},
        STATUS: statuses,
        "n": len(trained),
        **{str(name): value for name, value in values.mean(skipna=False).items()},  # over all trained networks, or NaN
        **{f"{name}/std": value for name, value in values.std(ddof=1, skipna=False).items()},
    }
