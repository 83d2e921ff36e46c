"""A sweep's folder as a section: a row for each cell, what failed, and what was measured over training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.lib import ArrowException

from lnsgd.messages import counted
from lnsgd.numbers import duration, number
from lnsgd.report.content import Plots, Section, Table, Text
from lnsgd.report.ended import facts, read_ended
from lnsgd.report.plot import plots
from lnsgd.report.reading import read_parquet, read_text
from lnsgd.report.tables import table_of
from lnsgd.report.trajectories import shown_labels, trajectories
from lnsgd.run_folder import RunFolder
from lnsgd.sweep import load, load_trajectories
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.table import COLUMNS
from lnsgd.untrusted.tables import naming
from lnsgd.untrusted.texts import load_yaml

_SEED = "seed_everything"

# How cells ended, from good to bad.
_STATUSES = ("done", "limit", "diverged", "failed", "running", "missing")


def is_sweep(folder: Path) -> bool:
    """Whether ``lnsgd sweep`` has written here."""
    return SweepFolder(folder).planned.is_file()


def read_sweep(folder: Path) -> Section:
    """The section of a sweep, finished or not.

    Raises:
        ValueError: a file is damaged.
    """
    sweep, ended = SweepFolder(folder), RunFolder(folder).finished
    for path in (sweep.planned, *sorted(sweep.pieces.glob("[!.]*.parquet"))):
        read_parquet(path, ["cell"])  # so that the error names the file
    table = _loaded(folder, load)
    counts = ", ".join(
        f"{(table.status == status).sum():,} {status}" for status in _STATUSES if (table.status == status).any()
    )
    open_cells = int(table.status.isin(["running", "missing"]).sum())
    return Section(
        kind="sweep",
        name=folder.resolve().name,
        path=str(folder),
        lead=_description(sweep),
        state=f"{counted(len(table), 'cell')}: {counts}",
        facts=facts(read_ended(ended), ended) if ended.exists() else _facts(table),
        notes=[f"{counted(open_cells, 'cell')} without a result so far."] if open_cells else [],
        tables=[_cells(table), *_failed(table)],
        plots=_plots(folder, table),
        texts=_texts(sweep),
    )


def _loaded(folder: Path, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    try:
        return read(folder)
    except (ArrowException, AttributeError, LookupError, TypeError, ValueError) as error:  # readable, but no sweep's
        cause = " ".join(str(error).split())[:160]
        raise ValueError(f"the tables in {folder} do not fit together ({cause}); leave this folder out") from error


def _description(sweep: SweepFolder) -> str:
    """The options that its grid varies."""
    if not sweep.sweep.exists():
        return ""
    with naming(sweep.sweep):
        grid = (load_yaml(sweep.sweep) or {}).get("grid", {})
        return f"Over {', '.join(grid)}." if grid else ""


def _facts(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Of a sweep that says nothing of itself, what its cells say."""
    versions = [f"{name} {', '.join(map(str, table[name].dropna().unique()))}" for name in ("lnsgd", "torch")]
    said = {
        "time": f"{duration(float(table.seconds.sum()))} of all cells" if table.seconds.notna().any() else "",
        "device": ", ".join(map(str, table.device.dropna().unique())),
        "versions": ", ".join(text for text in versions if not text.endswith(" ")),
    }
    return [(name, text) for name, text in said.items() if text]


def _cells(table: pd.DataFrame) -> Table:
    """Options, status and final measures first; what is known of the runs last."""
    names = list(table.columns)
    options, measures = _options(table), names[names.index("job") + 1 :]
    about = [name for name in COLUMNS if name not in ("status", "reason")]
    ordered = table[[*options, "status", "reason", *measures, *about, "cell"]].replace({"reason": {"": None}})
    return table_of(ordered, "Cells", mark="status", keep=["status", *options[:1]])


def _options(table: pd.DataFrame) -> list[str]:
    names = list(table.columns)
    return names[1 : names.index("status")]


def _failed(table: pd.DataFrame) -> list[Table]:
    """Reasons of failure, with how often there were and how many attempts were made."""
    failed = table[table.status == "failed"]
    if failed.empty:
        return []
    found = failed.groupby("reason", sort=False, dropna=False)
    rows = found.agg(cells=("cell", "count"), attempts=("attempts", "max"), jobs=("job", _listed)).reset_index()
    return [table_of(rows, "Why cells failed", keep=list(rows.columns))]


def _listed(jobs: "pd.Series[str]") -> str:
    return ", ".join(jobs.dropna().unique())


def _plots(folder: Path, table: pd.DataFrame) -> list[Plots]:
    """Mean and standard deviation over cells that differ in nothing but the seed."""
    for path in sorted(SweepFolder(folder).trajectories("any").parent.glob("[!.]*.parquet")):
        read_parquet(path, ["cell"])
    rows = _loaded(folder, load_trajectories)
    if rows.empty:
        return []
    options = [name for name in _options(table) if name != _SEED and table[name].astype(str).nunique() > 1]
    labels = [_label({name: row[name] for name in options}) for _, row in table.iterrows()]
    every = list(dict.fromkeys(labels))
    shown = shown_labels(every)
    groups = {cell: label for cell, label in zip(table.cell, labels) if label in shown}
    found = trajectories(rows.rename(columns={"cell": "unit"}), groups)
    note = f"{len(shown)} of {len(every)} settings are drawn." if len(shown) < len(every) else ""
    several = len(labels) > len(every)
    title = "Over training: mean and standard deviation over seeds" if several else "Over training"
    return [plots(title, found, shown, note)]


def _label(options: Mapping[str, Any]) -> str:
    said = {name: number(value) if isinstance(value, float) else str(value) for name, value in options.items()}
    return ", ".join(f"{name.rpartition('.')[2]} = {text}" for name, text in said.items())


def _texts(sweep: SweepFolder) -> list[Text]:
    """The sweep's file, and as an example the resolved config of its first job that has left one."""
    texts = [Text(sweep.sweep.name, read_text(sweep.sweep))] if sweep.sweep.exists() else []
    configs = (sweep.run(job).config for job in sweep.planned_jobs())
    if config := next((path for path in configs if path.exists()), None):
        texts.append(Text(f"Config, resolved, of job {config.parent.name}", read_text(config)))
    return texts
