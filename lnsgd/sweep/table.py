"""The table of a sweep: a row for each cell, and every number that was measured."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from lnsgd.console.messages import counted
from lnsgd.records.cells import (
    CELL,
    JOB,
    MISSING,
    REASON,
    RUNNING,
    STATUS,
    cells_in,
    has_failed,
    read_cells,
    read_planned,
    read_trajectories,
)
from lnsgd.records.changes import read_changes
from lnsgd.sweep.folder import SweepFolder


def load(folder: str | Path) -> pd.DataFrame:
    """Load the table of a sweep, at any time: one row for each cell, in the order of the grid.

    Columns are ``cell`` (the hash of its resolved config), its options by their names, ``status``, ``reason``,
    ``steps``, ``epochs``, ``seconds``, ``device``, versions of ``lnsgd`` and ``torch``, ``attempts``, ``job``, and the
    final measures as ``measure/split/layer``, with ``…/stderr`` if there is a standard error. The status is ``done``,
    ``limit`` (the limit of steps came before a stopping rule), ``diverged`` or ``failed``; without a result it is
    ``running`` or ``missing``. The ``seconds`` of a replica are those of its job divided by the number of replicas.

    Args:
        folder: Folder of the sweep, such as ``runs/sweeps/mnist-noise``.

    Raises:
        ValueError: The folder does not hold a sweep.
    """
    sweep = _sweep_folder(folder)
    options = read_planned(sweep.planned)
    rows = _rows(sweep, options.index).reindex(options.index)
    running = _running_cells(sweep)
    unfinished = rows.index[rows[STATUS].isna()]
    rows.loc[unfinished, STATUS] = [RUNNING if cell in running else MISSING for cell in unfinished]
    rows[REASON] = rows[REASON].fillna("")
    return pd.concat([options, rows], axis=1).rename_axis(CELL).reset_index()


def load_trajectories(folder: str | Path) -> pd.DataFrame:
    """Load every number that a sweep has measured so far: cell, step, epoch, split, measure, layer, value, stderr.

    Args:
        folder: Folder of the sweep, such as ``runs/sweeps/mnist-noise``.

    Raises:
        ValueError: The folder does not hold a sweep.
    """
    sweep = _sweep_folder(folder)
    rows = _rows(sweep, read_planned(sweep.planned).index)
    jobs = [(sweep.trajectories(Path(str(job)).name), list(cells)) for job, cells in rows.groupby(JOB).groups.items()]
    return read_trajectories([(path, cells) for path, cells in jobs if path.exists()])  # a failed job has none


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
    sweep = _sweep_folder(folder)
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


def _sweep_folder(folder: str | Path) -> SweepFolder:
    sweep = SweepFolder(Path(folder))
    if not sweep.planned.exists():
        raise ValueError(
            f"{folder} does not hold a sweep; give the folder that `lnsgd sweep` wrote, such as runs/sweeps/NAME"
        )
    return sweep


def _result_files(sweep: SweepFolder) -> list[Path]:
    return sorted(sweep.results.glob("[!.]*.parquet"))


def _rows(sweep: SweepFolder, wanted: Collection[str]) -> pd.DataFrame:
    """Read the rows of all jobs that have ended, by cell."""
    return read_cells(sorted(_result_files(sweep), key=lambda path: path.stat().st_mtime_ns), wanted)


def _running_cells(sweep: SweepFolder) -> set[str]:
    jobs = [job for job in sweep.planned_jobs() if not sweep.result(job).exists() and sweep.is_running(job)]
    return {cell for job in jobs for cell, _ in sweep.read_job(job).cells}
