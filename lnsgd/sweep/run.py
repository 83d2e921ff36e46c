"""Runs what is missing of a sweep."""

import shutil
from pathlib import Path

from rich.console import Console

from lnsgd.run_folder import RunFolder, whole_file
from lnsgd.sweep.display import Board, show_plan
from lnsgd.sweep.executor import Executor
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import read_sweep
from lnsgd.sweep.plan import make_plan
from lnsgd.sweep.resolve import ConfigReader
from lnsgd.sweep.table import failed_jobs, write_planned


def run_sweep(
    file: Path,
    out: Path,
    executor: Executor,
    console: Console,
    retries: int = 1,
    retry_failed: bool = False,
    dry_run: bool = False,
) -> bool:
    """Plans a sweep, shows the plan, and runs the jobs that have not ended yet.

    Args:
        file: The sweep, see `lnsgd.sweep.grid.read_sweep`.
        out: Its folder.
        executor: Who runs the jobs.
        console: Where plan and progress are shown.
        retries: Attempts at a job that fails, beyond the first.
        retry_failed: Run again what has failed for good before.
        dry_run: Only show the plan; run and write nothing.

    Returns:
        False where it was interrupted; see `lnsgd.sweep.executor.Executor.run`.

    Raises:
        ValueError: the sweep is wrong, or the folder cannot be written to; nothing has been run.
    """
    wanted, folder = read_sweep(file), SweepFolder(out)
    RunFolder(folder.path).check_writable()
    if not dry_run:
        executor.prepare()
    resources = executor.resources()
    reader = ConfigReader(wanted)
    again = failed_jobs(folder) if retry_failed else []
    plan = make_plan(wanted, reader, folder, resources, again)
    show_plan(wanted, plan, resources, console)
    if dry_run:
        if text := executor.handed_over(folder, len(plan.jobs)) if plan.jobs else "":
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        return True
    with folder.working():
        folder.forget(again)
        write_planned(folder, plan.cells.cells)
        with whole_file(folder.sweep) as part:
            shutil.copyfile(file, part)
        for spec in plan.jobs:
            folder.write_job(spec)
        with Board(folder, plan.jobs, console) as board:
            return executor.run(folder, [spec.name for spec in plan.jobs], retries, board.watch)
