"""What is printed of a sweep: its plan, how far it is, and what failed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lnsgd.messages import counted
from lnsgd.sweep.executor import Resources
from lnsgd.sweep.folder import JobSpec, SweepFolder
from lnsgd.sweep.grid import Sweep
from lnsgd.sweep.plan import Plan, varied
from lnsgd.sweep.progress import part_done
from lnsgd.writing import Throttle

# More jobs, or failed cells, are not shown one by one.
_ROWS = 40

_VALUES = 6

# The speed is averaged over this long: jobs of a sweep are not equally long.
_SPEED_SECONDS = 600


def show_plan(sweep: Sweep, plan: Plan, resources: Resources, console: Console) -> None:
    """Prints numbers of cells and jobs; for each job, or each kind of job, what was packed with what and why."""
    cells, complete = len(plan.cells.cells), len(plan.complete)
    console.print(
        f"[bold]{sweep.name}[/bold]: {counted(cells, 'cell')}, {complete} complete; "
        f"{counted(len(plan.jobs), 'job')} for the other {cells - complete}, {len(plan.begun)} of them begun; "
        f"{resources.at_once} at once with {resources.memory / 1e9:.3g} GB each",
        highlight=False,
    )
    if not plan.jobs:
        return
    common = _common(plan.jobs)
    if len(plan.jobs) <= _ROWS:
        table = Table("job", "cells", "together", "of", "why")
        for spec in plan.jobs:
            table.add_row(spec.name[:8], str(len(spec.cells)), _together(spec), _own(spec, common), spec.reason)
    else:
        table = Table("jobs", "cells of each", "together", "why")
        for (number, together, reason), jobs in Counter(_kind(spec) for spec in plan.jobs).most_common():
            table.add_row(str(jobs), str(number), together, reason)
    console.print(table)


def _together(spec: JobSpec) -> str:
    if len(spec.cells) == 1:
        return "a replica" if spec.replicated else "an ordinary run"
    return " × ".join(f"{_short(name)} {_listed(values)}" for name, values in varied(spec.cells).items())


def _short(option: str) -> str:
    return option.rpartition(".")[2]


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:_VALUES])
    return shown if len(values) <= _VALUES else f"{shown}, … ({len(values)})"


def _kind(spec: JobSpec) -> tuple[int, str, str]:
    together = " × ".join(f"{len(values)} {_short(name)}" for name, values in varied(spec.cells).items())
    return len(spec.cells), together or _together(spec), spec.reason


def _common(jobs: Iterable[JobSpec]) -> set[str]:
    """Options that have one value in all jobs."""
    different = varied([cell for spec in jobs for cell in spec.cells])
    return {name for spec in jobs for name in spec.cells[0][1] if name not in different}


def _own(spec: JobSpec, common: set[str]) -> str:
    inside = varied(spec.cells)
    options = spec.cells[0][1].items()
    return ", ".join(f"{_short(name)}={value}" for name, value in options if name not in common and name not in inside)


def failed_cells(table: pd.DataFrame) -> Table:
    """Failed cells, grouped by their reason."""
    failed = table[table.status == "failed"]
    shown = Table("failed cells", "attempts", "reason", "jobs", title="Failed")
    for reason, rows in list(failed.groupby("reason", sort=False))[:_ROWS]:
        shown.add_row(str(len(rows)), str(rows.attempts.max()), str(reason), _listed(list(rows.job.unique())))
    return shown


class Board:
    """A progress bar over the cells of a sweep that are to be run.

    Args:
        folder: The sweep's folder.
        jobs: What is to be run.
        console: Where it is drawn.
    """

    def __init__(self, folder: SweepFolder, jobs: Sequence[JobSpec], console: Console) -> None:
        self._folder = folder
        self._open = {spec.name: len(spec.cells) for spec in jobs}
        self._done = 0
        self._throttle = Throttle()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total} cells"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, auto_refresh=False, speed_estimate_period=_SPEED_SECONDS)
        self._task = self._bar.add_task("starting", total=sum(self._open.values()))

    def __enter__(self) -> "Board":
        self._bar.start()
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        self._look()
        self._bar.stop()

    def watch(self) -> None:
        """Draws the bar anew, if the last time is long enough ago."""
        if self._throttle.due():
            with self._throttle.writing():
                self._look()

    def _look(self) -> None:
        ended = [job for job in self._open if self._folder.piece(job).exists()]
        self._done += sum(self._open.pop(job) for job in ended)
        parts = {job: part_done(self._folder.progress(job)) for job in self._open}
        under_way = sum(part * self._open[job] for job, part in parts.items())
        description = f"{counted(len(self._open), 'job')} left"
        self._bar.update(self._task, completed=self._done + under_way, description=description)
        self._bar.refresh()
