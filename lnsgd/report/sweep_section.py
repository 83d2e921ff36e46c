"""The section of a sweep: a row for each cell, what failed, and what was measured over training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.lib import ArrowException

from lnsgd.console.messages import counted
from lnsgd.console.numbers import duration, number, numbers
from lnsgd.records.cells import (
    ATTEMPTS,
    CELL,
    COLUMNS,
    FAILED,
    JOB,
    MISSING,
    REASON,
    RUNNING,
    STATUS,
    STATUSES,
    headline_names,
    measure_names,
    option_names,
    read_cell_table,
    split_name,
)
from lnsgd.records.measures import HEADLINES, STDERR
from lnsgd.report.content import Plots, Section, Table, Text
from lnsgd.report.facts import facts_in
from lnsgd.report.plot import plots
from lnsgd.report.reading import read_text
from lnsgd.report.tables import table_of
from lnsgd.report.trajectories import shown_labels, trajectories
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep import changed_runs, load, load_trajectories, over_seeds
from lnsgd.sweep.folder import SweepFolder
from lnsgd.untrusted.tables import naming
from lnsgd.untrusted.texts import load_yaml

_SEED = "seed_everything"

# The most changes of options that are listed.
_MAX_CHANGES = 10


def read_sweep(folder: Path) -> Section:
    """Return the section of a sweep, finished or not.

    Raises:
        ValueError: a file is damaged.
    """
    sweep = SweepFolder(folder)
    for path in (sweep.planned, *sorted(sweep.results.glob("[!.]*.parquet"))):
        read_cell_table(path)  # so that the error names the file
    table = _loaded(folder, load)
    counts = ", ".join(
        f"{(table.status == status).sum():,} {status}" for status in STATUSES if (table.status == status).any()
    )
    averages = _averages(table)
    open_cells = int(table.status.isin([RUNNING, MISSING]).sum())
    return Section(
        kind="sweep",
        name=folder.resolve().name,
        path=str(folder),
        lead=_description(sweep),
        state=f"{counted(len(table), 'cell')}: {counts}",
        results=_results(averages),
        facts=facts_in(RunFolder(folder).finished) or _facts(table),
        notes=[*([f"{counted(open_cells, 'cell')} without a result so far."] if open_cells else []), *_changes(folder)],
        tables=[*_headlines(averages), _cells(table), *_failed(table)],
        plots=_plots(folder, table),
        texts=_texts(sweep),
    )


def _changes(folder: Path) -> list[str]:
    """Say which runs were resumed with other options than those in the table of cells."""
    changed = changed_runs(folder)
    more = [f"… and {len(changed) - _MAX_CHANGES} more."] if len(changed) > _MAX_CHANGES else []
    return [*(f"{line}." for line in changed[:_MAX_CHANGES]), *more]


def _loaded(folder: Path, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    try:
        return read(folder)
    except (
        ArrowException,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # readable, but not of a sweep
        cause = " ".join(str(error).split())[:160]
        raise ValueError(f"the tables in {folder} do not fit together ({cause}); leave this folder out") from error


def _description(sweep: SweepFolder) -> str:
    """Name the options that the grid varies."""
    if not sweep.sweep.exists():
        return ""
    with naming(sweep.sweep):
        grid = (load_yaml(sweep.sweep) or {}).get("grid", {})
        return f"Over {', '.join(grid)}." if grid else ""


def _facts(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return time, device and versions of the cells, for a sweep without a record of its own."""
    versions = [f"{name} {', '.join(map(str, table[name].dropna().unique()))}" for name in ("lnsgd", "torch")]
    said = {
        "time": f"{duration(float(table.seconds.sum()))} of all cells" if table.seconds.notna().any() else "",
        "device": ", ".join(map(str, table.device.dropna().unique())),
        "versions": ", ".join(text for text in versions if not text.endswith(" ")),
    }
    return [(name, text) for name, text in said.items() if text]


def _averages(table: pd.DataFrame) -> pd.DataFrame:
    """Return the headline measures of each setting of the grid: mean and, as ``…/std``, deviation over seeds."""
    measures = measure_names(table)
    others = set(measures) - set(headline_names(measures))
    names = [str(name) for name in table]
    return over_seeds(table[[name for name in names if name.removesuffix(f"/{STDERR}") not in others]])


def _headline_columns(averages: pd.DataFrame) -> list[str]:
    """Return the measures of which there is a number."""
    columns = list(averages.columns)
    measures = [name for name in columns[columns.index("n") + 1 :] if not name.endswith("/std")]
    return [name for name in headline_names(measures) if averages[name].notna().any()]


def _results(averages: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the range of each headline measure over the settings of the grid."""
    found = []
    for name in _headline_columns(averages):
        measure, split, _ = split_name(name)
        means = averages[name].dropna()
        ends = dict.fromkeys(numbers([means.min(), means.max()]))
        found.append((HEADLINES.get(measure, f"{split} {measure}"), " … ".join(ends)))
    return found


def _headlines(averages: pd.DataFrame) -> list[Table]:
    """Return a table of the headline measures of each setting; nothing if none was measured."""
    names = _headline_columns(averages)
    if not names:
        return []
    options = list(averages.columns[: averages.columns.get_loc(STATUS)])
    rows = averages[[*options, STATUS, "n", *(column for name in names for column in (name, f"{name}/std"))]]
    rows = rows.rename(columns={f"{name}/std": f"{name}/{STDERR}" for name in names})
    title = "Headline measures: mean ± standard deviation over seeds"
    return [table_of(rows, title, mark=STATUS, keep=options[:1], stacked=True)]


def _cells(table: pd.DataFrame) -> Table:
    """Return a row for each cell: options, status and final measures first, facts about the run last."""
    names = list(table.columns)
    options, measures = option_names(table), names[names.index(JOB) + 1 :]
    about = [name for name in COLUMNS if name not in (STATUS, REASON)]
    ordered = table[[*options, STATUS, REASON, *measures, *about, CELL]]
    ordered = ordered.assign(**{REASON: ordered[REASON].where(ordered[REASON] != "", None)})
    return table_of(ordered, "Cells", mark=STATUS, keep=[STATUS, *options[:1]])


def _failed(table: pd.DataFrame) -> list[Table]:
    """Return the reasons of failures, with the number of cells and of attempts."""
    failed = table[table.status == FAILED]
    if failed.empty:
        return []
    found = failed.groupby(REASON, sort=False, dropna=False)
    rows = found.agg(cells=(CELL, "count"), attempts=(ATTEMPTS, "max"), jobs=(JOB, _listed)).reset_index()
    return [table_of(rows, "Why cells failed", keep=list(rows.columns))]


def _listed(jobs: "pd.Series[str]") -> str:
    return ", ".join(jobs.dropna().unique())


def _plots(folder: Path, table: pd.DataFrame) -> list[Plots]:
    """Return plots of mean and standard deviation over cells that differ only in the seed."""
    for path in sorted(SweepFolder(folder).trajectories("any").parent.glob("[!.]*.parquet")):
        read_cell_table(path)
    rows = _loaded(folder, load_trajectories)
    if rows.empty:
        return []
    options = [name for name in option_names(table) if name != _SEED and table[name].astype(str).nunique() > 1]
    labels = [_label({name: row[name] for name in options}) for _, row in table.iterrows()]
    every = list(dict.fromkeys(labels))
    shown = shown_labels(every)
    groups = {cell: label for cell, label in zip(table.cell, labels) if label in shown}
    found = trajectories(rows, rows[CELL], groups)
    note = f"{len(shown)} of {len(every)} settings are drawn." if len(shown) < len(every) else ""
    several = len(labels) > len(every)
    title = "Over training: mean and standard deviation over seeds" if several else "Over training"
    return [plots(title, found, shown, note)]


def _label(options: Mapping[str, Any]) -> str:
    said = {name: number(value) if isinstance(value, float) else str(value) for name, value in options.items()}
    return ", ".join(f"{name.rpartition('.')[2]} = {text}" for name, text in said.items())


def _texts(sweep: SweepFolder) -> list[Text]:
    """Return the file of the sweep and, as an example, the resolved config of the first job that has one."""
    texts = [Text(sweep.sweep.name, read_text(sweep.sweep))] if sweep.sweep.exists() else []
    configs = (sweep.run(job).config for job in sweep.planned_jobs())
    if config := next((path for path in configs if path.exists()), None):
        texts.append(Text(f"Config, resolved, of job {config.parent.name}", read_text(config)))
    return texts
