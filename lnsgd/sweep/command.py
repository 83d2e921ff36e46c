"""``lnsgd sweep`` and ``lnsgd table``."""

import os
import sys
from argparse import Namespace
from pathlib import Path

import pandas as pd
from rich.console import Console

from lnsgd.messages import CommandParser, counted
from lnsgd.sweep.slurm_options import add_slurm_options, read_slurm_options
from lnsgd.sweep.table import UNFINISHED, load, load_trajectories
from lnsgd.sweep.table_display import show_table
from lnsgd.writing import whole_file


def sweep(args: list[str]) -> None:
    """Runs what is missing of a sweep.

    Raises:
        ValueError: the sweep, an option of it or of this command is wrong; nothing has been written.
        SystemExit: some cells have no row or failed, code 1; it was interrupted, code 75.
    """
    try:
        code = _sweep(_parse_sweep(args))
    except KeyboardInterrupt:  # before its jobs, or after them
        code = _interrupted()
    if code:
        raise SystemExit(code)


def _sweep(options: Namespace) -> int:
    # Here, because they import what a run needs, which takes seconds.
    from lnsgd.sweep.display import failed_cells
    from lnsgd.sweep.executor import make_executor
    from lnsgd.sweep.run import run_sweep

    console = Console()
    if options.retries < 0:
        raise ValueError(f"--retries {options.retries}; give 0 or more")
    out = options.out or Path("runs") / "sweeps" / options.sweep.stem
    executor = make_executor(options.executor, options.workers, options.memory, read_slurm_options(options))
    ended = run_sweep(
        options.sweep, out, executor, console, options.retries, options.retry_failed, dry_run=options.dry_run
    )
    if options.dry_run:
        return 0
    table = load(out)
    console.print(summary(table), highlight=False)
    if (table.status == "failed").any():
        console.print(failed_cells(table))
    console.print(f"Table: lnsgd table {out}", highlight=False, soft_wrap=True)
    if not ended:
        return _interrupted()
    return int(table.status.isin(UNFINISHED).any())


def _interrupted() -> int:
    print("lnsgd: interrupted; the same command goes on from there", file=sys.stderr)
    return os.EX_TEMPFAIL


def _parse_sweep(args: list[str]) -> Namespace:
    parser = CommandParser("lnsgd sweep", description="Run every cell of a grid; called again, only what is missing.")
    parser.add_argument("sweep", type=Path, help="the sweep, such as configs/sweeps/mnist-noise.yaml")
    parser.add_argument("--executor", default="local", help="who runs the jobs: local (the default) or slurm")
    parser.add_argument("--out", type=Path, help="folder (default: runs/sweeps/NAME)")
    parser.add_argument("--workers", type=int, help="jobs at the same time (default: as fits; slurm: 16)")
    memory = "gigabytes that all jobs may take, with slurm each (default: 0.7 of what there is)"
    parser.add_argument("--memory", type=float, help=memory)
    retries = "attempts at a job in a row that get its run no further, beyond the first (1)"
    parser.add_argument("--retries", type=int, default=1, help=retries)
    parser.add_argument("--retry-failed", action="store_true", help="run again what has failed for good before")
    parser.add_argument("--dry-run", action="store_true", help="show cells and jobs; run and write nothing")
    add_slurm_options(parser)
    return parser.parse_args(args)


def table(args: list[str]) -> None:
    """Prints the table of a sweep, or writes it to files.

    Raises:
        ValueError: there is no sweep, no such measure, or an option is wrong.
    """
    parser = CommandParser("lnsgd table", description="What a sweep has found, at any time.")
    parser.add_argument("folder", type=Path, help="the sweep's folder, such as runs/sweeps/mnist-noise")
    parser.add_argument("--cells", action="store_true", help="show each cell, not the mean over seeds")
    measures = "names or patterns, such as 'active_*/val*,hessian_trace*' (default: all but the parts of totals)"
    parser.add_argument("--measures", default="", help=measures)
    parser.add_argument("--csv", type=Path, help="write a row for each cell to this file; - for standard output")
    parser.add_argument("--trajectories", type=Path, help="write all measured numbers to this Parquet file")
    options = parser.parse_args(args)
    found = load(options.folder)
    console = Console()
    if options.csv == Path("-"):
        found.to_csv(sys.stdout, index=False)
    elif options.csv is not None:
        with whole_file(options.csv) as part:
            found.to_csv(part, index=False)
    if options.trajectories is not None:
        with whole_file(options.trajectories) as part:
            load_trajectories(options.folder).to_parquet(part, index=False)
    if options.csv is None and options.trajectories is None:
        patterns = [name.strip() for name in options.measures.split(",") if name.strip()]
        show_table(found, console, patterns, options.cells)
    if options.csv != Path("-"):
        console.print(summary(found), highlight=False)


def summary(table: pd.DataFrame) -> str:
    """How many cells there are of each status."""
    counts = ", ".join(f"{number} {status}" for status, number in table.status.value_counts().items())
    return f"{counted(len(table), 'cell')}: {counts}"
