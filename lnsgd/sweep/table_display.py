"""The table of a sweep as it is printed: as many columns beside each other as fit, none of them cut."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lnsgd.numbers import plus_minus
from lnsgd.sweep.seeds import measure_names, option_names, over_seeds

# More rows are only written to files.
_ROWS = 40


def show_table(found: pd.DataFrame, console: Console, patterns: Sequence[str] = (), cells: bool = False) -> None:
    """Prints final measures: mean ± standard deviation over seeds, or each cell's with its standard error.

    Args:
        found: What `load` gives.
        console: Where to.
        patterns: Names or glob patterns of measures, such as ``active_*/val*``; by default those of whole networks and
            of activation sites, not the parts that single tensors have in a total.
        cells: A row for each cell.

    Raises:
        ValueError: no measure fits a pattern.
    """
    measures = _chosen(measure_names(found), patterns)
    rows, error = (found, "stderr") if cells else (over_seeds(found), "std")
    options = option_names(found) if cells else list(rows.columns[: rows.columns.get_loc("status")])
    columns = [_column(rows.head(_ROWS), name, error) for name in [*options, "status", *([] if cells else ["n"])]]
    for table in _tables(columns, [_column(rows.head(_ROWS), name, error) for name in measures], console):
        console.print(table)
    if len(rows) > _ROWS:
        console.print(f"The first {_ROWS} of {len(rows)} rows; --csv FILE writes all", highlight=False)
    if measures and not cells:
        console.print("Mean ± standard deviation over n seeds; --cells shows each", highlight=False)


def _chosen(measures: Sequence[str], patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return [name for name in measures if not _is_part(name, measures)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in measures):
            there = ", ".join(dict.fromkeys(name.partition("/")[0] for name in measures)) or "none so far"
            raise ValueError(f"--measures {pattern}: no measure fits this pattern; there are {there}")
    return [name for name in measures if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _is_part(name: str, measures: Sequence[str]) -> bool:
    """Whether the last part of a name is a tensor of which there is a total, such as ``distance_from_init/weight``."""
    return name.rpartition("/")[0] in measures


def _column(rows: pd.DataFrame, name: str, error: str) -> tuple[str, list[str]]:
    errors = rows.get(f"{name}/{error}", pd.Series(float("nan"), rows.index))
    return name.replace("/", "/\n"), [_said(value, spread) for value, spread in zip(rows[name], errors)]


def _said(value: Any, error: float) -> str:
    if isinstance(value, (list, dict, str)):
        return str(value)
    return "" if pd.isna(value) else plus_minus(value, error)


def _tables(
    left: Sequence[tuple[str, list[str]]], columns: Sequence[tuple[str, list[str]]], console: Console
) -> Iterator[Table]:
    """Tables that begin with the same columns, each as wide as the console allows."""
    shown = list(left)
    for column in columns:
        if len(shown) > len(left) and _width([*shown, column], console) > console.width:
            yield _table(shown)
            shown = list(left)
        shown.append(column)
    yield _table(shown)


def _width(columns: Sequence[tuple[str, list[str]]], console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), _table(columns)).maximum


def _table(columns: Sequence[tuple[str, list[str]]]) -> Table:
    table = Table()
    for name, _ in columns:
        table.add_column(name, no_wrap=False, overflow="fold")
    for row in zip(*(values for _, values in columns)):
        table.add_row(*row)
    return table
