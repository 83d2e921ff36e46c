"""Options of ``lnsgd sweep`` and ``lnsgd table``, read before anything that takes seconds is imported."""

from argparse import Namespace
from pathlib import Path

from lnsgd.console.messages import CommandParser
from lnsgd.sweep.executors.slurm_options import add_slurm_options


def parse_sweep(args: list[str]) -> Namespace:
    """Read the options of ``lnsgd sweep``.

    Raises:
        ValueError: an option is unknown or not valid.
    """
    options = sweep_parser().parse_args(args)
    if options.retries < 0:
        raise ValueError(f"--retries {options.retries}; give 0 or more")
    return options


def parse_table(args: list[str]) -> Namespace:
    """Read the options of ``lnsgd table``.

    Raises:
        ValueError: an option is unknown or not valid.
    """
    options = table_parser().parse_args(args)
    if options.all and options.measures:
        raise ValueError("--all and --measures exclude each other; give one of them")
    return options


def sweep_parser() -> CommandParser:
    """Make the parser of ``lnsgd sweep``."""
    parser = CommandParser("lnsgd sweep", description="Run every cell of a grid; run again, only missing cells.")
    parser.add_argument(
        "sweep", type=Path, help="file of the sweep, or the name of one that ships with lnsgd, such as mnist-noise"
    )
    parser.add_argument("--executor", default="local", help="where jobs run: local (the default) or slurm")
    parser.add_argument("--out", type=Path, help="folder (default: runs/sweeps/NAME)")
    parser.add_argument("--workers", type=int, help="jobs at the same time (default: as many as fit; slurm: 16)")
    memory = "gigabytes that all jobs together may take; with slurm, each job (default: 0.7 of what is available)"
    parser.add_argument("--memory", type=float, help=memory)
    retries = "further attempts at a job that do not advance its run (default: 1)"
    parser.add_argument("--retries", type=int, default=1, help=retries)
    parser.add_argument("--retry-failed", action="store_true", help="run jobs again that have failed for good")
    parser.add_argument("--dry-run", action="store_true", help="show cells and jobs; run and write nothing")
    add_slurm_options(parser)
    return parser


def table_parser() -> CommandParser:
    """Make the parser of ``lnsgd table``."""
    parser = CommandParser("lnsgd table", description="Show what a sweep has found, at any time.")
    parser.add_argument("folder", type=Path, help="the sweep's folder, such as runs/sweeps/mnist-noise")
    parser.add_argument("--cells", action="store_true", help="show each cell instead of the mean over seeds")
    measures = "names or patterns, such as 'active_*/val*,hessian_trace*' (default: the headline measures)"
    parser.add_argument("--measures", default="", help=measures)
    parser.add_argument("--all", action="store_true", help="show all measures instead of the headline measures")
    parser.add_argument("--csv", type=Path, help="write a row for each cell to this file; - for standard output")
    parser.add_argument("--trajectories", type=Path, help="write all measured numbers to this Parquet file")
    return parser
