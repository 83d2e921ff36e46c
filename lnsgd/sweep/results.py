"""What a sweep has found so far, in plain Python: which cells have a row, and the columns of its table."""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lnsgd.console.messages import counted
from lnsgd.records.cells import (
    CELL,
    COLUMNS,
    MISSING,
    REASON,
    RUNNING,
    STATUS,
    cells_in,
    has_failed,
    read_cells,
    read_planned,
)
from lnsgd.records.changes import read_changes
from lnsgd.sweep.folder import SweepFolder


def load_columns(folder: str | Path) -> dict[str, list[Any]]:
    """Load the columns of the table of a sweep, see `lnsgd.sweep.load`.

    Args:
        folder: Folder of the sweep, such as ``runs/sweeps/mnist-noise``.

    Returns:
        Values by the name of their column. A number that was not measured is NaN, as is an option that a cell does not
        have; what else is not known is ``None``.

    Raises:
        ValueError: The folder does not hold a sweep, or a file is damaged.
    """
    sweep = planned_sweep(folder)
    planned = read_planned(sweep.planned)
    rows, measures = read_results(sweep, planned)
    running = _running_cells(sweep)
    for cell in planned.keys() - rows.keys():
        rows[cell] = {STATUS: RUNNING if cell in running else MISSING}
    options = dict.fromkeys(name for given in planned.values() for name in given)
    if twice := [name for name in options if name in (CELL, *COLUMNS, *measures)]:
        raise ValueError(
            f"the tables in {folder} do not fit together: {twice[0]!r:.60} is an option and another column"
        )
    found: dict[str, list[Any]] = {CELL: list(planned)}
    found |= {name: [given.get(name, math.nan) for given in planned.values()] for name in options}
    found |= {name: [rows[cell].get(name) for cell in planned] for name in COLUMNS}
    found[REASON] = [reason or "" for reason in found[REASON]]
    values = {name: [rows[cell].get(name) for cell in planned] for name in measures}
    return found | {name: [math.nan if value is None else float(value) for value in of] for name, of in values.items()}


def changed_runs(folder: str | Path) -> list[str]:
    """Say which runs of a sweep were resumed with other options, by which some of their cells are not what they say.

    Args:
        folder: Folder of the sweep, such as ``runs/sweeps/mnist-noise``.

    Returns:
        A sentence for each time that a run was resumed so: its folder, its cells, the step, and the options with their
        values before and after.

    Raises:
        ValueError: The folder does not hold a sweep, or a record of changes is damaged.
    """
    sweep = planned_sweep(folder)
    found = []
    for job in sweep.planned_jobs():
        run = sweep.run(job)
        if not run.changes.exists():
            continue
        cells = [cell for cell, _ in sweep.read_job(job).cells]
        of = f"cell {cells[0]}" if len(cells) == 1 else counted(len(cells), "cell")
        found += [f"{run.path} ({of}): options changed {change}" for change in read_changes(run)]
    return found


def complete_cells(
    sweep: SweepFolder, known: Mapping[str, Iterable[str]], except_jobs: Collection[str] = ()
) -> set[str]:
    """Return the cells that have a row.

    Args:
        sweep: The folder of the sweep.
        known: Cells of some jobs, by name of the job; the results of these jobs need not be read.
        except_jobs: Jobs that do not count.
    """
    found: set[str] = set()
    for path in _result_files(sweep):
        if path.stem in except_jobs:
            continue
        cells = known.get(path.stem)
        found.update(cells_in(path) if cells is None else cells)
    return found


def failed_jobs(sweep: SweepFolder) -> list[str]:
    """Return the jobs that have failed for good and are not running."""
    names = [path.stem for path in _result_files(sweep)]
    return [job for job in names if _has_failed(sweep, job) and not sweep.is_running(job)]


def forget_failed(sweep: SweepFolder) -> list[str]:
    """Forget jobs that have failed for good, so that they run again; return their names."""
    return [job for job in failed_jobs(sweep) if sweep.forget(job, lambda name: _has_failed(sweep, name))]


def _has_failed(sweep: SweepFolder, job: str) -> bool:
    return sweep.result(job).exists() and has_failed(sweep.result(job))


def planned_sweep(folder: str | Path) -> SweepFolder:
    """Return the folder of a sweep that was planned.

    Args:
        folder: Folder of the sweep, such as ``runs/sweeps/mnist-noise``.

    Raises:
        ValueError: The folder does not hold a sweep.
    """
    sweep = SweepFolder(Path(folder))
    if not sweep.planned.exists():
        raise ValueError(
            f"{folder} does not hold a sweep; give the folder that `lnsgd sweep` wrote, such as runs/sweeps/NAME"
        )
    return sweep


def _result_files(sweep: SweepFolder) -> list[Path]:
    return sorted(sweep.results.glob("[!.]*.parquet"))


def read_results(sweep: SweepFolder, wanted: Collection[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read the rows of all jobs that have ended, see `lnsgd.records.cells.read_cells`.

    Args:
        sweep: The folder of the sweep.
        wanted: Names of the cells that count.
    """
    return read_cells(sorted(_result_files(sweep), key=lambda path: path.stat().st_mtime_ns), wanted)


def _running_cells(sweep: SweepFolder) -> set[str]:
    jobs = [job for job in sweep.planned_jobs() if not sweep.result(job).exists() and sweep.is_running(job)]
    return {cell for job in jobs for cell, _ in sweep.read_job(job).cells}
