"""The command ``lnsgd analyze``."""

import platform
from argparse import Namespace
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from lnsgd.analysis.analyses import run_analysis
from lnsgd.analysis.checkpoints import Overrides, open_inputs
from lnsgd.analysis.comparison import run_comparison
from lnsgd.analysis.context import choose_device
from lnsgd.analysis.measurers import Selection
from lnsgd.analysis.named_objects import build_data, build_loss, build_measurers, build_model
from lnsgd.analysis.pairs import ComparisonSettings
from lnsgd.analysis.pictures import draw, draw_line, save_png
from lnsgd.analysis.tables import Shown, difference_lines, measurement_lines, similarity_lines
from lnsgd.console.messages import counted
from lnsgd.records.provenance import provenance_of_now, read_provenance, write_provenance
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.writing import check_writable, remove_parts, whole_file


def analyze(options: Namespace) -> None:
    """Measure checkpoints, or compare two; print and draw the results, and say where they are.

    Args:
        options: Options of the command, `lnsgd.analysis.options.parse`.

    Raises:
        ValueError: an option, a checkpoint or a measure is wrong; nothing has been written.
        OSError: data is missing, or the folder cannot be written to.
    """
    console = Console()
    own = options.own
    choose_device(options.accelerator)
    overrides = Overrides(
        None if options.model is None else build_model(options.model, own["model"]),
        None if options.loss is None else build_loss(options.loss, own["loss"]),
        None if options.data is None else build_data(options.data, own["data"]),
        options.init,
        options.batch_size,
        options.trust,
    )
    selection = Selection([], with_defaults=True)
    if options.measures is not None:
        selection = build_measurers(options.measures, own["measures"])
    if options.compare is None:
        _analyze(options, overrides, selection, console)
    else:
        _compare(options, overrides, selection, console)


def _analyze(options: Namespace, overrides: Overrides, selection: Selection, console: Console) -> None:
    out = _folder(options, _name(options.inputs[0]), options.inputs, "analysis.json")
    sets = open_inputs(options.inputs, overrides)
    analysis = run_analysis(sets, selection, out, options.accelerator, console)
    _write(analysis.table, out / "analysis")
    preprocessing = "; ".join(dict.fromkeys(one.preprocessing for one in sets if one.preprocessing))
    _write_record(out / "analysis.json", options, options.inputs, preprocessing or None)
    _print(console, measurement_lines(analysis.table, _shown(options), console.width))
    drawn = ", ".join(path.name for path in draw(analysis, out))
    networks = counted(analysis.table.groupby(["checkpoint", "replica"]).ngroups, "network")
    console.print(
        f"{networks}, {counted(len(analysis.rows), 'number')}: {out / 'analysis.csv'} and .parquet"
        + (f"\nPictures in {out}: {drawn}" if drawn else ""),
        highlight=False,
        soft_wrap=True,
    )


def _compare(options: Namespace, overrides: Overrides, selection: Selection, console: Console) -> None:
    settings = ComparisonSettings(options.points, options.batch_norm, options.features)
    a, b = options.compare
    names = _name(a), _name(b)
    out = _folder(options, f"{names[0]}-vs-{names[1]}", (a, b), "comparison.json")
    found = run_comparison((a, b), overrides, selection, out, options.accelerator, settings, console)
    for name, table in found._asdict().items():
        _write(table, out / name)
    if len(found.path):
        save_png(draw_line(found.path, names), out / "path.png")
    _write_record(out / "comparison.json", options, (a, b))
    shown = _shown(options)
    _print(console, difference_lines(found.differences, names, shown, console.width))
    console.print()
    _print(console, similarity_lines(found.similarity, shown, console.width))
    console.print(f"Tables and the picture of the line between A and B: {out}", highlight=False, soft_wrap=True)


def _shown(options: Namespace) -> Shown:
    if options.all:
        return Shown.ALL
    return Shown.HEADLINES if options.measures is None else Shown.CHOSEN


def _print(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _folder(options: Namespace, name: str, inputs: Sequence[Path], record: str) -> Path:
    """Return the folder that was given, or the first named after the input that has no analysis of another one."""
    parent = Path("runs") / "analysis"
    names = (parent / (name if number == 1 else f"{name}-{number}") for number in count(1))
    out = options.out or next(folder for folder in names if _is_free(folder / record, inputs))
    check_writable(out)
    remove_parts(out)
    return out


def _is_free(record: Path, inputs: Sequence[Path]) -> bool:
    """Whether there is no analysis, or one of these inputs, perhaps of more or fewer; older records do not say it."""
    if not record.exists():
        return True
    before, now = set(read_provenance(record).inputs), set(_absolute(inputs))
    return before <= now or now <= before


def _absolute(inputs: Sequence[Path]) -> list[str]:
    return [str(path.resolve()) for path in inputs]


def _write(table: pd.DataFrame, path: Path) -> None:
    with whole_file(path.with_suffix(".parquet")) as part:
        table.to_parquet(part, index=False)
    with whole_file(path.with_suffix(".csv")) as part:
        table.to_csv(part, index=False)


def _write_record(path: Path, options: Namespace, inputs: Sequence[Path], preprocessing: str | None = None) -> None:
    """Record how the tables were made: by which command, when, and on which machine."""
    device = choose_device(options.accelerator).type
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    made = provenance_of_now(
        command=options.command, inputs=_absolute(inputs), preprocessing=preprocessing, device=name
    )
    write_provenance(made, path)


def _name(path: Path) -> str:
    """Return the name of a run, or of a file."""
    path = path.resolve()
    run = None if path.is_dir() else RunFolder.of_checkpoint(path)
    return f"{run.path.name}-{path.stem}" if run else path.stem
