"""Options of ``lnsgd reproduce``, which are known to be right before a figure is imported."""

from argparse import Namespace
from pathlib import Path

from lnsgd.console.messages import CommandParser, did_you_mean
from lnsgd.figures.framework.listing import listed_figures

LIST = "list"

# No further reading is begun if it would end after so many minutes; a figure at the paper's size should fit.
BUDGET = 30.0


def parse(args: list[str]) -> Namespace:
    """Read the options.

    Raises:
        ValueError: an unknown option, figure or scale, a senseless number, or options that exclude each other.
    """
    options = make_parser().parse_args(args)
    if options.figure == LIST:
        return options
    figures = listed_figures()
    if options.figure not in figures:
        hint = did_you_mean(options.figure, figures)
        raise ValueError(f"there is no figure {options.figure!r}{hint}; `lnsgd reproduce list` lists all")
    scales = figures[options.figure].scales
    if options.scale not in scales:
        raise ValueError(f"{options.figure} has no scale {options.scale!r}; choose {', '.join(scales)}")
    if options.seeds is not None and options.seeds < 1:
        raise ValueError(f"--seeds {options.seeds} is too few; give at least 1")
    if options.budget is not None and not options.variants:
        raise ValueError(f"--budget {options.budget:g} is of --variants; give both, or leave it out")
    if options.variants:
        _check_variants(options)
    return options


def _check_variants(options: Namespace) -> None:
    if options.budget is not None and not options.budget > 0:
        raise ValueError(
            f"--budget {options.budget:g}: give the minutes after which no further reading is begun, more than 0"
        )
    if options.wandb is not None:
        raise ValueError("--wandb does not track --variants; leave one of them out")


def make_parser() -> CommandParser:
    """Make the parser of ``lnsgd reproduce``."""
    parser = CommandParser(
        "lnsgd reproduce", description="Reproduce a figure of a paper; `lnsgd reproduce list` lists the figures."
    )
    parser.add_argument("figure", help=f"name of a figure; {LIST} shows all")
    parser.add_argument("--scale", default="ci", help="ci (seconds, the default) or paper; some figures have more")
    parser.add_argument("--seeds", type=int, help="number of seeds of each arm (default: that of the scale)")
    parser.add_argument("--out", type=Path, help="folder (default: runs/reproduce/FIGURE-SCALE)")
    parser.add_argument(
        "--variants",
        action="store_true",
        help="judge the central claims under each reading of what the paper leaves open, and draw one heat map",
    )
    parser.add_argument(
        "--budget", type=float, help=f"minutes after which --variants begins no further reading (default: {BUDGET:g})"
    )
    parser.add_argument("--all", action="store_true", help="also print the full table of results and all claims")
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="lnsgd",
        metavar="PROJECT",
        help="track every run, and finally picture and claims, in Weights & Biases (default project: lnsgd)",
    )
    parser.add_argument(
        "--workers", type=int, help="jobs at a time, if the figure is a sweep (default: as many as fit)"
    )
    return parser
