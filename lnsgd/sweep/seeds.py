"""The table of a sweep with its seeds averaged."""

import json
from typing import Any

import pandas as pd

from lnsgd.sweep.grid import SEED
from lnsgd.sweep.table import COLUMNS

# Statuses of cells whose final measures are those of a trained network.
_TRAINED = ("done", "limit")


def option_names(table: pd.DataFrame) -> list[str]:
    """The options of the grid among the columns of `load`'s table."""
    names = list(table.columns)
    return names[names.index("cell") + 1 : names.index("status")]


def measure_names(table: pd.DataFrame) -> list[str]:
    """The final measures among the columns of `load`'s table, without their standard errors."""
    others = {"cell", *option_names(table), *COLUMNS}
    return [name for name in table.columns if name not in others and not name.endswith("/stderr")]


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds of the final measures.

    Args:
        table: What `load` gives.

    Returns:
        A row for each cell of the grid but for its seed, in the grid's order: its options; ``status``, such as
        ``2 done, 1 diverged``; ``n``, over how many trained networks (``done`` or ``limit``) is averaged; and each
        measure's mean with the sample standard deviation (n − 1) as ``…/std``, which is NaN where n < 2. Both are NaN
        where that of one of these networks is.
    """
    options = [name for name in option_names(table) if name != SEED]
    measures = measure_names(table)
    keys = [json.dumps([row[name] for name in options], default=str) for _, row in table.iterrows()]
    rows = [_averaged(cells, options, measures) for _, cells in table.groupby(keys, sort=False)]
    deviations = [f"{name}/std" for name in measures]
    columns = [name for pair in zip(measures, deviations) for name in pair]
    return pd.DataFrame(rows, columns=[*options, "status", "n", *columns])


def _averaged(cells: pd.DataFrame, options: list[str], measures: list[str]) -> dict[str, Any]:
    trained = cells[cells.status.isin(_TRAINED)]
    statuses = ", ".join(f"{number} {status}" for status, number in cells.status.value_counts().items())
    values = trained[measures].astype(float)
    return {
        **{name: cells[name].iloc[0] for name in options},
        "status": statuses,
        "n": len(trained),
        **values.mean(skipna=False).to_dict(),  # over all of them, or none
        **values.std(ddof=1, skipna=False).add_suffix("/std").to_dict(),
    }
