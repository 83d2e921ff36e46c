"""Print a sweep: its plan, its table, and the cells that failed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from lnsgd.console.messages import counted, did_you_mean
from lnsgd.console.numbers import is_missing, numbers, plus_minus
from lnsgd.console.tables import Column, common_prefix, short_names, split_off_equal, tables
from lnsgd.records.cells import (
    ATTEMPTS,
    FAILED,
    JOB,
    REASON,
    STATUS,
    Columns,
    headline_names,
    measure_names,
    option_names,
    split_name,
)
from lnsgd.records.measures import STDERR, WHOLE
from lnsgd.sweep.averages import average_over_seeds

if TYPE_CHECKING:  # they import what a run needs, which takes seconds
    from lnsgd.records.jobs import JobSpec
    from lnsgd.sweep.executors.base import Resources
    from lnsgd.sweep.grid import Sweep
    from lnsgd.sweep.plan import Plan

# The most jobs, rows or reasons that are listed one by one.
_MAX_ROWS = 40

# The most values of an option that are listed.
_MAX_VALUES = 6


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


def failed_cells(table: Columns) -> Table:
    """List the failed cells, grouped by their reason.

    Args:
        table: The columns of the sweep's table.
    """
    groups: dict[str, list[int]] = {}
    for row, status in enumerate(table[STATUS]):
        if status == FAILED:
            groups.setdefault(str(table[REASON][row]), []).append(row)
    listed = Table("failed cells", "attempts", "reason", "jobs", title="Failed")
    for reason, rows in list(groups.items())[:_MAX_ROWS]:
        attempts = max((table[ATTEMPTS][row] for row in rows if table[ATTEMPTS][row] is not None), default="")
        jobs = list(dict.fromkeys(table[JOB][row] for row in rows))
        listed.add_row(str(len(rows)), str(attempts), reason, _list(jobs))
    return listed


def show_table(
    found: Columns, console: Console, patterns: Sequence[str] = (), cells: bool = False, every: bool = False
) -> None:
    """Print final measures: mean ± standard deviation over seeds, or each cell with its standard error.

    As many columns as fit are printed beside each other, and no name or number is cut. What is equal in all rows stands
    above the table.

    Args:
        found: The columns of the sweep's table.
        console: Where to print.
        patterns: Names or glob patterns of measures, such as ``active_*/val*``; by default the headline measures, and
            the error if it was measured; where there are none of these, all but the parts of totals.
        cells: Print a row for each cell.
        every: Print all measures.

    Raises:
        ValueError: No measure matches a pattern.
    """
    names = measure_names(found)
    measures = _choose_measures(names, patterns, every)
    rows, error = (found, STDERR) if cells else (average_over_seeds(found), "std")
    options = option_names(found) if cells else list(rows)[: list(rows).index(STATUS)]
    number, listed = len(rows[STATUS]), {name: values[:_MAX_ROWS] for name, values in rows.items()}
    short = short_names(options)
    own = [Column(short[name], [_text(value) for value in listed[name]], is_text=True) for name in options]
    counts = [
        Column(name, [str(value) for value in listed[name]], True) for name in (STATUS, *([] if cells else ["n"]))
    ]
    left, equal = split_off_equal([*own, *counts])
    heads, where = _heads(measures)
    right = [Column(head, _numbers(listed, name, error)) for head, name in zip(heads, measures)]
    renamed = [f"{own} is {name}" for name, own in short.items() if own != name]
    caption = [f"{number:,} rows" if cells else "mean ± standard deviation over seeds", *where, *renamed]
    caption += [f"{column.head}: {column.cells[0]}" for column in equal]
    console.print("; ".join(caption), highlight=False, markup=False)
    for lines in tables(left, right, console.width):
        console.print()
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print()
    for line in _left_out(number, len(measures), len(names), cells):
        console.print(line, highlight=False, markup=False)


def _left_out(rows: int, shown: int, measures: int, cells: bool) -> Iterator[str]:
    """Say what the table does not show, and which options show it."""
    if rows > _MAX_ROWS:
        yield f"The first {_MAX_ROWS} of {rows} rows; --csv FILE writes all"
    hints = [] if shown == measures else [f"{shown} of {counted(measures, 'measure')}; --all shows the others"]
    if hints or not cells:
        yield "; ".join([*hints, *([] if cells else ["--cells shows each seed"])])


def _choose_measures(names: Sequence[str], patterns: Sequence[str], every: bool) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = list(dict.fromkeys(name.partition("/")[0] for name in names))
            hint = did_you_mean(pattern, names) or did_you_mean(pattern.partition("/")[0], known)
            raise ValueError(
                f"--measures {pattern}: no measure matches this pattern{hint}; the measures are "
                f"{', '.join(known) or 'none so far'}"
            )
    if patterns:
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if every:
        return list(names)
    return headline_names(names) or [name for name in names if not _is_part_of_total(name, names)]


def _heads(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the headings of measures, without the split and the begin of layers that all have, and what that is."""
    parts = [split_name(name) for name in names]
    splits = {split for _, split, _ in parts if split}
    layers = [layer for *_, layer in parts if layer not in WHOLE]
    prefix = common_prefix(layers)
    heads = []
    for measure, split, layer in parts:
        own = "" if layer in WHOLE else layer.removeprefix(prefix)
        heads.append("/\n".join(part for part in (measure, split if len(splits) > 1 else "", own) if part))
    where = [f"on {splits.pop()}"] if len(splits) == 1 else []
    return heads, [*where, *([f"layers in {prefix.rstrip('.')}"] if prefix else [])]


def _is_part_of_total(name: str, measures: Sequence[str]) -> bool:
    """Return whether the last part of a name is a tensor that counts in a total: ``distance_from_init/weight``."""
    return name.rpartition("/")[0] in measures


def _numbers(rows: Columns, name: str, error: str) -> list[str]:
    values, errors = rows[name], rows.get(f"{name}/{error}", ())
    if all(map(is_missing, errors)):
        return ["" if is_missing(value) else text for value, text in zip(values, numbers(values))]
    return ["" if is_missing(value) else plus_minus(value, spread) for value, spread in zip(values, errors)]


def _text(value: Any) -> str:
    """Return the value of an option as it is printed."""
    if isinstance(value, (list, dict, str)):
        return str(value)
    return "" if is_missing(value) else plus_minus(value, None)
