"""Runs what is missing of a sweep."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from lnsgd.sweep.display import Board, show_plan
from lnsgd.sweep.executor import Executor
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import Sweep, read_sweep
from lnsgd.sweep.plan import Packed, Plan, make_plan, pack_cells
from lnsgd.sweep.resolve import ConfigReader
from lnsgd.sweep.table import failed_jobs, forget_failed, write_planned
from lnsgd.writing import check_writable, remove_parts, whole_file


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
        retries: See `lnsgd.sweep.work.run_job`.
        retry_failed: Run again what has failed for good before.
        dry_run: Only show the plan; run and write nothing.

    Returns:
        False where it was interrupted; see `lnsgd.sweep.executor.Executor.run`.

    Raises:
        ValueError: the sweep is wrong, or the folder cannot be written to; nothing has been run.
    """
    wanted, folder = read_sweep(file), SweepFolder(out)
    check_writable(folder.path)
    if not dry_run:
        remove_parts(folder.path)
        executor.prepare()
    resources = executor.resources()
    packed = pack_cells(wanted, ConfigReader(wanted), resources)
    if dry_run:
        plan = make_plan(wanted, packed, folder, failed_jobs(folder) if retry_failed else [])
        show_plan(wanted, plan, resources, console)
        if text := executor.handed_over(folder, len(plan.jobs)) if plan.jobs else "":
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        return True
    with _written_plan(file, wanted, packed, folder, retry_failed) as plan:
        show_plan(wanted, plan, resources, console)
        with Board(folder, plan.jobs, console) as board:
            return executor.run(folder, [spec.name for spec in plan.jobs], retries, board.watch)


@contextmanager
def _written_plan(file: Path, sweep: Sweep, packed: Packed, folder: SweepFolder, retry_failed: bool) -> Iterator[Plan]:
    """A plan whose jobs are kept in the folder; others see that somebody works there.

    Of two sweeps that are started at the same moment, the second plans when the first has written its jobs and is seen
    to work: so it takes these, whatever its own packing would be.
    """
    with ExitStack() as working:
        with folder.planning():
            again = forget_failed(folder) if retry_failed else []
            plan = make_plan(sweep, packed, folder, again)
            working.enter_context(folder.working())
            write_planned(folder, plan.cells.cells)
            with whole_file(folder.sweep) as part:
                shutil.copyfile(file, part)
            for spec in plan.jobs:
                folder.write_job(spec)
        yield plan
