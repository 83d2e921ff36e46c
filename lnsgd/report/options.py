"""Options of ``lnsgd report``, read before anything that takes seconds is imported."""

from argparse import Namespace
from pathlib import Path

from lnsgd.console.messages import CommandParser
from lnsgd.loggers.wandb.identifiers import check_project
from lnsgd.runs.writing import check_writable


def parse(args: list[str]) -> Namespace:
    """Read the options.

    Raises:
        ValueError: an option is unknown, the page cannot be written, or W&B does not accept the name of the project.
    """
    options = make_parser().parse_args(args)
    if options.wandb is not None:
        check_project(options.wandb)
    if options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; give a file, such as {options.out / 'report.html'}")
    check_writable(options.out.parent)
    return options


def make_parser() -> CommandParser:
    """Make the parser of ``lnsgd report``."""
    parser = CommandParser(
        "lnsgd report", description="Show figures, sweeps, runs and analyses on one HTML page that loads nothing."
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folders of figures, sweeps, runs or analyses, or folders that hold some of these",
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="lnsgd",
        metavar="PROJECT",
        help="also send page, pictures and claims to Weights & Biases, as a run of their own (project: lnsgd)",
    )
    return parser
