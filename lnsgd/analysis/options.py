"""Options of ``lnsgd analyze``, read before anything that takes seconds is imported."""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lnsgd.console.messages import CommandParser

# The objects that options name, and the packages in which names without a path are looked up.
ROOMS = {
    "model": "lnsgd.models",
    "data": "lnsgd.data",
    "loss": "lnsgd.losses",
    "measures": "lnsgd.measuring",
}

# How the line between two networks is computed by default: number of points, and what is done with running statistics.
POINTS: Final = 11
BATCH_NORM: Final = "reestimate"


def parse(args: list[str]) -> Namespace:
    """Read the options; the arguments of objects are in ``own``, and the whole command in ``command``.

    Raises:
        ValueError: an option is unknown or lacks its value, or options exclude each other.
    """
    others, own = split_off(args)
    options = make_parser().parse_args(others)
    options.own, options.command = own, shlex.join(["lnsgd", "analyze", *args])
    for name in ROOMS:
        if own[name] and getattr(options, name) is None:
            raise ValueError(f"{own[name][0]} is an argument of --{name}, which is missing; give --{name} too")
    if options.compare is None and not options.inputs:
        raise ValueError("nothing to analyze; give runs or checkpoints, such as lnsgd analyze runs/mnist")
    if options.compare is not None and options.inputs:
        raise ValueError(f"--compare takes two inputs; leave out {', '.join(map(str, options.inputs))}")
    return options


def split_off(args: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Separate the arguments of objects, such as ``--model.width 8`` or ``--model.width=8``, from all others.

    Returns:
        The other arguments, and the arguments of objects by option.

    Raises:
        ValueError: the last argument needs a value.
    """
    others: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in ROOMS}
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        name = arg.removeprefix("--").partition(".")[0]
        if not arg.startswith("--") or "." not in arg.partition("=")[0] or name not in own:
            others.append(arg)
        elif "=" in arg:
            own[name].append(arg)
        elif rest:
            own[name] += [arg, rest.pop(0)]
        else:
            raise ValueError(f"{arg}: its value is missing")
    return others, own


def make_parser() -> CommandParser:
    """Make the parser of ``lnsgd analyze``."""
    parser = CommandParser(
        "lnsgd analyze",
        description="Measure checkpoints: one table, and plots. What was measured before is not measured again.",
        epilog="Arguments of a class are options: --model.width 8, --data.data_dir DIR, --measures.HessianTrace.rtol "
        "0.01. Classes without a path are those of lnsgd.models, lnsgd.data, lnsgd.losses and lnsgd.measuring.",
        allow_abbrev=False,
    )
    parser.add_argument("inputs", nargs="*", type=Path, metavar="CKPT_OR_RUN", help="runs, checkpoints, weight files")
    parser.add_argument("--measures", help="names, such as ActiveNeurons,HessianTrace or default,SpectralDensity")
    parser.add_argument("--all", action="store_true", help="print all rows instead of the headline measures")
    parser.add_argument("--data", help="a DataModule to measure on (default: the run's)")
    parser.add_argument("--model", help="class or function that makes the network of files without a run")
    parser.add_argument("--loss", help="per-example loss (default: the run's)")
    parser.add_argument("--init", type=Path, metavar="CKPT", help="initial weights (default: the run's)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder (default: runs/analysis/NAME)")
    parser.add_argument("--accelerator", default="auto", help="auto (the default), cpu or cuda")
    parser.add_argument("--batch-size", type=int, help="examples in a forward pass (default: the data's)")
    trust = "a package whose classes the configs of runs may name, such as that of your own noise; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust)
    compared = "compare two networks, or two runs of replicas with the same seeds"
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help=compared)
    points = f"number of points on the line from A to B (default: {POINTS})"
    parser.add_argument("--points", type=int, default=POINTS, help=points)
    statistics = f"running statistics between A and B: reestimate or interpolate (default: {BATCH_NORM})"
    parser.add_argument("--batch-norm", default=BATCH_NORM, help=statistics)
    features = "module whose inputs CKA compares (default: the last layer's)"
    parser.add_argument("--features", metavar="MODULE", help=features)
    return parser
