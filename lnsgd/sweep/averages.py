"""Averages of the table of a sweep over its seeds."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lnsgd.records.cells import STATUS, TRAINED, Columns, measure_names, option_names
from lnsgd.sweep.grid import SEED


def average_over_seeds(table: Columns) -> dict[str, list[Any]]:
    """Compute what `lnsgd.sweep.over_seeds` returns.

    Args:
        table: The columns of a sweep's table, see `lnsgd.sweep.results.load_columns`.
    """
    options = [name for name in option_names(table) if name != SEED]
    groups: dict[str, list[int]] = {}
    for row in range(len(table[STATUS])):
        key = json.dumps([table[name][row] for name in options], default=str)
        groups.setdefault(key, []).append(row)
    found: dict[str, list[Any]] = {name: [table[name][rows[0]] for rows in groups.values()] for name in options}
    statuses = [[table[STATUS][row] for row in rows] for rows in groups.values()]
    found[STATUS] = [count_statuses(of) for of in statuses]
    trained = [[row for row in rows if table[STATUS][row] in TRAINED] for rows in groups.values()]
    found["n"] = [len(rows) for rows in trained]
    for name in measure_names(table):
        values = [[float(table[name][row]) for row in rows] for rows in trained]
        found[name], found[f"{name}/std"] = [_mean(of) for of in values], [_deviation(of) for of in values]
    return found


def count_statuses(statuses: Sequence[str]) -> str:
    """Count statuses, the most frequent first: ``2 done, 1 diverged``."""
    return ", ".join(f"{number} {status}" for status, number in Counter(statuses).most_common())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n − 1); NaN for n < 2, or if a value is not finite."""
    if len(values) < 2:
        return math.nan
    mean = _mean(values)
    differences = [value - mean for value in values]
    return math.sqrt(sum(difference * difference for difference in differences) / (len(values) - 1))
