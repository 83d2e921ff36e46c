"""``lnsgd analyze``."""

import json
import platform
import shlex
from argparse import Namespace
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from lnsgd import __version__
from lnsgd.analysis.analyze import run_analysis
from lnsgd.analysis.bench import best_device
from lnsgd.analysis.compare import run_comparison
from lnsgd.analysis.how import How
from lnsgd.analysis.measuring import Measure
from lnsgd.analysis.objects import build_data, build_loss, build_measures, build_model, split_off
from lnsgd.analysis.opening import Given, open_sources
from lnsgd.analysis.plots import draw, line
from lnsgd.analysis.shown import shown, shown_differences, shown_similarity
from lnsgd.callbacks.pictures import save
from lnsgd.messages import CommandParser, counted
from lnsgd.run_folder import RunFolder
from lnsgd.writing import check_writable, remove_parts, whole_file


def analyze(args: list[str]) -> None:
    """Measures checkpoints; prints and draws what was found, and says where it is.

    Raises:
        ValueError: an option, a checkpoint or a measure is wrong; nothing has been written.
        OSError: data is missing, or the folder cannot be written to.
    """
    console = Console()
    others, own = split_off(args)
    options = _parse(others)
    options.command = shlex.join(["lnsgd", "analyze", *args])
    best_device(options.accelerator)
    for name in ("model", "data", "loss", "measures"):
        if own[name] and getattr(options, name) is None:
            raise ValueError(f"{own[name][0]}: of which {name}? Say it with --{name}")
    given = Given(
        None if options.model is None else build_model(options.model, own["model"]),
        None if options.loss is None else build_loss(options.loss, own["loss"]),
        None if options.data is None else build_data(options.data, own["data"]),
        options.init,
        options.batch_size,
        options.trust,
    )
    chosen = ([], True) if options.measures is None else build_measures(options.measures, own["measures"])
    if options.compare is None:
        _analyze(options, given, chosen, console)
    else:
        _compare(options, given, chosen, console)


def _analyze(options: Namespace, given: Given, chosen: tuple[list[Measure], bool], console: Console) -> None:
    if not options.inputs:
        raise ValueError("nothing to analyze; give runs or checkpoints, such as lnsgd analyze runs/mnist")
    out = _folder(options, _name(options.inputs[0]))
    sources = open_sources(options.inputs, given)
    analysis = run_analysis(sources, *chosen, out, options.accelerator, console)
    _write(analysis.table, out / "analysis")
    _write_ended(out / "analysis.json", options)
    console.print(shown(analysis.table))
    drawn = ", ".join(path.name for path in draw(analysis, out))
    networks = counted(analysis.table.groupby(["checkpoint", "replica"]).ngroups, "network")
    console.print(
        f"{networks}, {counted(len(analysis.rows), 'number')}: {out / 'analysis.csv'} and .parquet"
        + (f"\nPictures in {out}: {drawn}" if drawn else ""),
        highlight=False,
        soft_wrap=True,
    )


def _compare(options: Namespace, given: Given, chosen: tuple[list[Measure], bool], console: Console) -> None:
    if options.inputs:
        raise ValueError(f"--compare takes two inputs; leave out {', '.join(map(str, options.inputs))}")
    how = How(options.points, options.batch_norm, options.features)
    names = _name(options.compare[0]), _name(options.compare[1])
    out = _folder(options, f"{names[0]}-vs-{names[1]}")
    a, b = options.compare
    found = run_comparison(a, b, given, *chosen, out, options.accelerator, how, console)
    for name, table in found._asdict().items():
        _write(table, out / name)
    if len(found.path):
        save(line(found.path, names), out / "path.png")
    _write_ended(out / "comparison.json", options)
    console.print(shown_differences(found.differences, names), shown_similarity(found.similarity))
    console.print(f"Tables and the picture of the line between A and B: {out}", highlight=False, soft_wrap=True)


def _folder(options: Namespace, name: str) -> Path:
    out = options.out or Path("runs") / "analysis" / name
    check_writable(out)
    remove_parts(out)
    return out


def _write(table: pd.DataFrame, path: Path) -> None:
    with whole_file(path.with_suffix(".parquet")) as part:
        table.to_parquet(part, index=False)
    with whole_file(path.with_suffix(".csv")) as part:
        table.to_csv(part, index=False)


def _write_ended(path: Path, options: Namespace) -> None:
    """Says how the tables were made: with which command, when, on what."""
    device = best_device(options.accelerator)
    ended = {
        "command": options.command,
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"lnsgd": __version__, "torch": torch.__version__},
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(ended, indent=2) + "\n")


def _name(path: Path) -> str:
    """That of a run, or of a file."""
    path = path.resolve()
    run = None if path.is_dir() else RunFolder.of_checkpoint(path)
    return f"{run.path.name}-{path.stem}" if run else path.stem


def _parse(args: list[str]) -> Namespace:
    parser = CommandParser(
        "lnsgd analyze",
        description="Measure checkpoints: one table, and plots. What was measured before is not measured again.",
        epilog="Arguments of a class are options: --model.width 8, --data.data_dir DIR, --measures.HessianTrace.rtol "
        "0.01. Classes without a path are those of lnsgd.models, lnsgd.data, lnsgd.losses and lnsgd.callbacks.",
        allow_abbrev=False,
    )
    parser.add_argument("inputs", nargs="*", type=Path, metavar="CKPT_OR_RUN", help="runs, checkpoints, weight files")
    parser.add_argument("--measures", help="names, such as ActiveNeurons,HessianTrace or default,SpectralDensity")
    parser.add_argument("--data", help="a DataModule to measure on (default: the run's)")
    parser.add_argument("--model", help="class or function that makes the network of files that belong to no run")
    parser.add_argument("--loss", help="per-example loss (default: the run's)")
    parser.add_argument("--init", type=Path, metavar="CKPT", help="initial weights (default: the run's)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder (default: runs/analysis/NAME)")
    parser.add_argument("--accelerator", default="auto", help="auto (the default), cpu or cuda")
    parser.add_argument("--batch-size", type=int, help="examples in a forward pass (default: the data's)")
    trust = "a package whose classes the configs of runs may name, such as that of your own noise; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust)
    compared = "two networks, or two runs of replicas with the same seeds, against each other"
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help=compared)
    how = How()
    points = f"of the straight line from A to B ({how.points})"
    parser.add_argument("--points", type=int, default=how.points, help=points)
    statistics = f"running statistics between A and B: reestimate or interpolate ({how.batch_norm})"
    parser.add_argument("--batch-norm", default=how.batch_norm, help=statistics)
    features = "module whose inputs CKA compares (default: the last layer's)"
    parser.add_argument("--features", metavar="MODULE", help=features)
    return parser.parse_args(args)
