"""Print a sweep: its plan, its table, and the cells that failed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lnsgd.console.messages import counted
from lnsgd.console.numbers import plus_minus
from lnsgd.records.cells import STATUS, measure_names, option_names
from lnsgd.records.measures import STDERR
from lnsgd.sweep.averages import over_seeds

if TYPE_CHECKING:  # they import what a run needs, which takes seconds
    from lnsgd.records.jobs import JobSpec
    from lnsgd.sweep.executors.base import Resources
    from lnsgd.sweep.grid import Sweep
    from lnsgd.sweep.plan import Plan

# The most jobs, rows or reasons that are listed one by one.
_MAX_ROWS = 40

# The most values of an option that are listed.
_MAX_VALUES = 6

# A column of a table: its head, and its cells as text.
_Column = tuple[str, list[str]]


def show_plan(sweep: "Sweep", plan: "Plan", resources: "Resources", console: Console) -> None:
    """Print the numbers of cells and jobs and, for each job or kind of job, what was packed together and why."""
    cells, complete = len(plan.cells.cells), len(plan.complete)
    console.print(
        f"[bold]{sweep.name}[/bold]: {counted(cells, 'cell')}, {complete} complete; "
        f"{counted(len(plan.jobs), 'job')} for the other {cells - complete}, {len(plan.begun)} of them begun; "
        f"{resources.at_once} at once with {resources.memory / 1e9:.3g} GB each",
        highlight=False,
    )
    if not plan.jobs:
        return
    common = _common_options(plan.jobs)
    if len(plan.jobs) <= _MAX_ROWS:
        table = Table("job", "cells", "together", "of", "why")
        for spec in plan.jobs:
            own = _own_options(spec, common)
            table.add_row(spec.name[:8], str(len(spec.cells)), _packed_together(spec), own, spec.reason)
    else:
        table = Table("jobs", "cells of each", "together", "why")
        for (number, together, reason), jobs in Counter(_kind_of(spec) for spec in plan.jobs).most_common():
            table.add_row(str(jobs), str(number), together, reason)
    console.print(table)


def _packed_together(spec: "JobSpec") -> str:
    if len(spec.cells) == 1:
        return "a replica" if spec.replicated else "an ordinary run"
    return " × ".join(f"{_short_name(name)} {_list(values)}" for name, values in varied_options(spec.cells).items())


def _short_name(option: str) -> str:
    return option.rpartition(".")[2]


def _list(values: Sequence[Any]) -> str:
    text = ", ".join(str(value) for value in values[:_MAX_VALUES])
    return text if len(values) <= _MAX_VALUES else f"{text}, … ({len(values)})"


def _kind_of(spec: "JobSpec") -> tuple[int, str, str]:
    varied = varied_options(spec.cells)
    together = " × ".join(f"{len(values)} {_short_name(name)}" for name, values in varied.items())
    return len(spec.cells), together or _packed_together(spec), spec.reason


def _common_options(jobs: "Iterable[JobSpec]") -> set[str]:
    """Return the options that have the same value in all jobs."""
    different = varied_options([cell for spec in jobs for cell in spec.cells])
    return {name for spec in jobs for name in spec.cells[0][1] if name not in different}


def _own_options(spec: "JobSpec", common: set[str]) -> str:
    inside = varied_options(spec.cells)
    options = spec.cells[0][1].items()
    own = ((name, value) for name, value in options if name not in common and name not in inside)
    return ", ".join(f"{_short_name(name)}={value}" for name, value in own)


def varied_options(cells: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, list[Any]]:
    """Return the options in which cells differ, each with its values in order of appearance."""
    values: dict[str, list[Any]] = {}
    for _, options in cells:
        for name, value in options.items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return {name: found for name, found in values.items() if len(found) > 1}


def failed_cells(table: pd.DataFrame) -> Table:
    """List the failed cells, grouped by their reason."""
    failed = table[table.status == "failed"]
    listed = Table("failed cells", "attempts", "reason", "jobs", title="Failed")
    for reason, rows in list(failed.groupby("reason", sort=False))[:_MAX_ROWS]:
        listed.add_row(str(len(rows)), str(rows.attempts.max()), str(reason), _list(list(rows.job.unique())))
    return listed


def show_table(found: pd.DataFrame, console: Console, patterns: Sequence[str] = (), cells: bool = False) -> None:
    """Print final measures: mean ± standard deviation over seeds, or each cell with its standard error.

    As many columns as fit are printed beside each other, and no column is cut.

    Args:
        found: The data frame that `load` returns.
        console: Where to print.
        patterns: Names or glob patterns of measures, such as ``active_*/val*``; by default all measures of whole
            networks and of activation sites, without the parts that single tensors have in a total.
        cells: Print a row for each cell.

    Raises:
        ValueError: No measure matches a pattern.
    """
    measures = _choose_measures(measure_names(found), patterns)
    rows, error = (found, STDERR) if cells else (over_seeds(found), "std")
    options = option_names(found) if cells else list(rows.columns[: rows.columns.get_loc(STATUS)])
    heads = [*options, STATUS, *([] if cells else ["n"])]
    left = [_make_column(rows.head(_MAX_ROWS), name, error) for name in heads]
    right = [_make_column(rows.head(_MAX_ROWS), name, error) for name in measures]
    for table in _split_into_tables(left, right, console):
        console.print(table)
    if len(rows) > _MAX_ROWS:
        console.print(f"The first {_MAX_ROWS} of {len(rows)} rows; --csv FILE writes all", highlight=False)
    if measures and not cells:
        console.print("Mean ± standard deviation over n seeds; --cells shows each", highlight=False)


def _choose_measures(measures: Sequence[str], patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return [name for name in measures if not _is_part_of_total(name, measures)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in measures):
            names = ", ".join(dict.fromkeys(name.partition("/")[0] for name in measures)) or "none so far"
            raise ValueError(f"--measures {pattern}: no measure matches this pattern; the measures are {names}")
    return [name for name in measures if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _is_part_of_total(name: str, measures: Sequence[str]) -> bool:
    """Return whether the last part of a name is a tensor that counts in a total: ``distance_from_init/weight``."""
    return name.rpartition("/")[0] in measures


def _make_column(rows: pd.DataFrame, name: str, error: str) -> _Column:
    errors = rows.get(f"{name}/{error}", pd.Series(float("nan"), rows.index))
    return name.replace("/", "/\n"), [_format(value, spread) for value, spread in zip(rows[name], errors)]


def _format(value: Any, error: float) -> str:
    if isinstance(value, (list, dict, str)):
        return str(value)
    return "" if pd.isna(value) else plus_minus(value, error)


def _split_into_tables(left: Sequence[_Column], columns: Sequence[_Column], console: Console) -> Iterator[Table]:
    """Split columns into tables that begin with the same columns and are as wide as the console allows."""
    current = list(left)
    for column in columns:
        if len(current) > len(left) and _width([*current, column], console) > console.width:
            yield _make_table(current)
            current = list(left)
        current.append(column)
    yield _make_table(current)


def _width(columns: Sequence[_Column], console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), _make_table(columns)).maximum


def _make_table(columns: Sequence[_Column]) -> Table:
    table = Table()
    for name, _ in columns:
        table.add_column(name, no_wrap=False, overflow="fold")
    for row in zip(*(values for _, values in columns)):
        table.add_row(*row)
    return table
