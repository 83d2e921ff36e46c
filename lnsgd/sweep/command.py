"""The commands ``lnsgd sweep`` and ``lnsgd table``."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from rich.console import Console

from lnsgd.console.messages import counted
from lnsgd.records.cells import FAILED, STATUS, UNFINISHED, Columns
from lnsgd.runs.writing import whole_file
from lnsgd.sweep.averages import count_statuses
from lnsgd.sweep.display import failed_cells, show_table
from lnsgd.sweep.executors.slurm_options import read_slurm_options
from lnsgd.sweep.results import changed_runs, load_columns
from lnsgd.training.shipped_configs import config_path

# The most changes of options that are listed.
_MAX_CHANGES = 10


def sweep(options: Namespace) -> None:
    """Run what is missing of a sweep.

    Args:
        options: Options of the command, `lnsgd.sweep.options.parse_sweep`.

    Raises:
        ValueError: The sweep, or an option of the sweep, is not valid; nothing has been written.
        SystemExit: Some cells failed or have no row, code 1; the sweep was interrupted, code 75.
    """
    try:
        code = _sweep(options)
    except KeyboardInterrupt:  # before or after its jobs
        code = _report_interruption()
    if code:
        raise SystemExit(code)


def _sweep(options: Namespace) -> int:
    sweep = config_path(options.sweep, "sweeps")
    # Imported here, because they import what a run needs, which takes seconds and is not needed for a table.
    from lnsgd.sweep.executors.base import make_executor
    from lnsgd.sweep.run import run_sweep

    console = Console()
    out = options.out or Path("runs") / "sweeps" / sweep.stem
    executor = make_executor(options.executor, options.workers, options.memory, read_slurm_options(options))
    ended = run_sweep(sweep, out, executor, console, options.retries, options.retry_failed, dry_run=options.dry_run)
    if options.dry_run:
        return 0
    table = load_columns(out)
    console.print(summarize(table), highlight=False)
    if FAILED in table[STATUS]:
        console.print(failed_cells(table))
    _show_changes(out, console)
    console.print(f"Table: lnsgd table {out}", highlight=False, soft_wrap=True)
    if not ended:
        return _report_interruption()
    return int(not set(UNFINISHED).isdisjoint(table[STATUS]))


def _report_interruption() -> int:
    print("lnsgd: interrupted; run the same command again to continue", file=sys.stderr)
    return os.EX_TEMPFAIL


def table(options: Namespace) -> None:
    """Print the table of a sweep, or write it to files.

    Args:
        options: Options of the command, `lnsgd.sweep.options.parse_table`.

    Raises:
        ValueError: The folder does not hold a sweep, or a measure does not exist.
    """
    found, console = load_columns(options.folder), Console()
    if options.csv is None and options.trajectories is None:
        patterns = [name.strip() for name in options.measures.split(",") if name.strip()]
        show_table(found, console, patterns, options.cells, options.all)
    else:
        _write_files(options)
    if options.csv != Path("-"):
        console.print(summarize(found), highlight=False)
    _show_changes(options.folder, Console(stderr=True) if options.csv == Path("-") else console)


def _write_files(options: Namespace) -> None:
    # Imported here, because data frames take a moment to import, and what is shown is made without them.
    from lnsgd.sweep.table import load, load_trajectories

    if options.csv == Path("-"):
        load(options.folder).to_csv(sys.stdout, index=False)
    elif options.csv is not None:
        with whole_file(options.csv) as part:
            load(options.folder).to_csv(part, index=False)
    if options.trajectories is not None:
        with whole_file(options.trajectories) as part:
            load_trajectories(options.folder).to_parquet(part, index=False)


def _show_changes(folder: Path, console: Console) -> None:
    """Print which runs were resumed with other options than those that the table has."""
    changed = changed_runs(folder)
    for line in changed[:_MAX_CHANGES]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if len(changed) > _MAX_CHANGES:
        console.print(f"… and {len(changed) - _MAX_CHANGES} more, see changes.json of each run", highlight=False)


def summarize(table: Columns) -> str:
    """Count the cells of each status."""
    return f"{counted(len(table[STATUS]), 'cell')}: {count_statuses(table[STATUS])}"
