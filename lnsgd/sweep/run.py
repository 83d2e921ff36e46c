"""Run what is missing of a sweep."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from lnsgd.records.cells import write_planned
from lnsgd.runs.writing import check_writable, remove_parts, whole_file
from lnsgd.sweep.config_reader import ConfigReader
from lnsgd.sweep.display import show_plan
from lnsgd.sweep.executors.base import Executor
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import Sweep, read_sweep
from lnsgd.sweep.plan import PackedSweep, Plan, make_plan, pack_cells
from lnsgd.sweep.progress import SweepProgressBar
from lnsgd.sweep.results import failed_jobs, forget_failed


def run_sweep(
    file: Path,
    out: Path,
    executor: Executor,
    console: Console,
    retries: int = 1,
    retry_failed: bool = False,
    dry_run: bool = False,
) -> bool:
    """Plan a sweep, show the plan, and run the jobs that have not ended yet.

    Args:
        file: The file of the sweep, see `lnsgd.sweep.grid.read_sweep`.
        out: Folder of the sweep.
        executor: Runs the jobs.
        console: Shows plan and progress.
        retries: See `lnsgd.sweep.job_runner.run_job`.
        retry_failed: Run jobs again that have failed for good.
        dry_run: Only show the plan; run and write nothing.

    Returns:
        False if the sweep was interrupted; see `lnsgd.sweep.executors.base.Executor.run`.

    Raises:
        ValueError: The sweep is not valid, or the folder cannot be written to; nothing has been run.
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
        if text := executor.submission_script(folder, len(plan.jobs)) if plan.jobs else "":
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        return True
    with _written_plan(file, wanted, packed, folder, retry_failed) as plan:
        show_plan(wanted, plan, resources, console)
        with SweepProgressBar(folder, plan.jobs, console) as bar:
            return executor.run(folder, [spec.name for spec in plan.jobs], retries, bar.refresh_if_due)


@contextmanager
def _written_plan(
    file: Path, sweep: Sweep, packed: PackedSweep, folder: SweepFolder, retry_failed: bool
) -> Iterator[Plan]:
    """Make a plan and write its jobs into the folder; while in the context, others see that the folder is in use.

    If two sweeps start at the same moment, the second plans after the first has written its jobs and has marked the
    folder as in use. The second then takes these jobs, whatever its own packing would be.
    """
    with ExitStack() as working:
        with folder.planning():
            again = forget_failed(folder) if retry_failed else []
            plan = make_plan(sweep, packed, folder, again)
            working.enter_context(folder.working())
            write_planned([(cell.name, cell.options) for cell in plan.cells.cells], folder.planned)
            with whole_file(folder.sweep) as part:
                shutil.copyfile(file, part)
            for spec in plan.jobs:
                folder.write_job(spec)
        yield plan
