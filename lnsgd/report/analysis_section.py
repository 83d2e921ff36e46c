"""The section of an analysis: measures of checkpoints, or two networks compared."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lnsgd.console.messages import counted
from lnsgd.console.numbers import number
from lnsgd.records.analyses import (
    CHECKPOINT,
    DIFFERENCES,
    PATH,
    POSITION,
    SEED,
    SIMILARITY,
    analysis_table,
    differences_of,
    measured_in,
    named_differences,
    over_pairs,
    read_analysis_table,
)
from lnsgd.records.headlines import headlines_of
from lnsgd.records.measures import (
    EPOCH,
    HEADLINES,
    LAYER,
    MEASURE,
    QUANTITY,
    REPLICA,
    SPLIT,
    STDERR,
    STEP,
    VALUE,
    WHOLE,
    headlines_first,
    with_weights_in_names,
)
from lnsgd.report.content import Plots, Section, Table
from lnsgd.report.facts import facts_in
from lnsgd.report.kinds import is_comparison
from lnsgd.report.plot import plots
from lnsgd.report.reading import read_picture
from lnsgd.report.tables import table_of
from lnsgd.report.trajectories import Curve, Trajectory, shown_labels, trajectories


def read_analysis(folder: Path) -> Section:
    """Return the section of an analysis or a comparison, or of both in one folder.

    Raises:
        ValueError: a file is damaged.
    """
    name, path = folder.resolve().name, _table(folder)
    measured = _read(path) if path.exists() else analysis_table([]).assign(run="", file="")
    runs = list(dict.fromkeys(measured["run"]))
    networks = len(measured[[CHECKPOINT, REPLICA]].drop_duplicates())
    compared = _comparison(folder) if is_comparison(folder) else []
    said = [f"{counted(networks, 'network')}, {counted(len(measured), 'number')}"] if runs else []
    return Section(
        kind="analysis" if runs else "comparison",
        name=name,
        path=str(folder),
        lead=f"Checkpoints of {', '.join(runs)}." if runs else "",
        state="; ".join([*said, *(["A against B"] if compared else [])]),
        results=_results(folder, measured),
        facts=[fact for name in ("analysis", "comparison") for fact in facts_in(folder / f"{name}.json")],
        tables=[*_measures(measured), *compared],
        plots=_plots(measured),
        pictures=[read_picture(file, f"{file.stem} of {name}") for file in sorted(folder.glob("[!.]*.png"))],
    )


def _results(folder: Path, measured: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the headline measures: of A and B with the difference in percent, or of one run from start to end."""
    if is_comparison(folder):
        rows = read_analysis_table(folder / "differences.parquet", DIFFERENCES)
        return list(_compared(rows[rows[LAYER].isin(WHOLE)]))
    if measured.empty or measured["run"].nunique() > 1:
        return []
    return [(one.name, one.change) for one in headlines_of(measured)]


def _compared(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for measure, name in HEADLINES.items():
        of_measure = differences_of(rows[rows[MEASURE] == measure])
        row = next((row for row in of_measure if row.split in ("train", "")), next(iter(of_measure), None))
        if row is not None:
            percent = 100 * (row.b / row.a - 1) if row.a > 0 else 0.0
            change = f" ({'+' if percent > 0 else ''}{number(percent, 2)}\N{NO-BREAK SPACE}%)" if percent else ""
            yield name, f"{number(row.a)} → {number(row.b)}{change}"


def _table(folder: Path) -> Path:
    return folder / "analysis.parquet"


def _read(path: Path) -> pd.DataFrame:
    """Read the table; each row also gets the run of its file (or the folder), and the name of the file."""
    table = with_weights_in_names(read_analysis_table(path))
    folders = {text: _home(Path(text)) for text in table[CHECKPOINT].unique()}
    names = Counter(folder.name for folder in set(folders.values()))
    runs = {text: folder.name if names[folder.name] == 1 else str(folder) for text, folder in folders.items()}
    files = table[CHECKPOINT].map(lambda text: Path(text).name)
    return table.assign(run=table[CHECKPOINT].map(runs), file=files)


def _home(file: Path) -> Path:
    """Return the folder of a file's run, or the file's own folder if it does not belong to a run."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def _measures(measured: pd.DataFrame) -> list[Table]:
    """Return a table of the last checkpoint of each run and, if there are others, one of all checkpoints."""
    if measured.empty:
        return []
    rows = _over_replicas(measured)
    last = rows[STEP].isna() | (rows[STEP] == rows.groupby("run")[STEP].transform("max"))
    kind = "mean ± standard deviation over replicas" if "mean ± std" in rows else "value ± standard error"
    if last.all():
        return [table_of(rows, f"Measures: {kind}", keep=[MEASURE], stacked=True)]
    return [
        table_of(headlines_first(rows[last]), f"Last checkpoint: {kind}", keep=[MEASURE], stacked=True),
        table_of(rows, f"Every checkpoint: {kind}", keep=[MEASURE, STEP], stacked=True),
    ]


def _over_replicas(measured: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each number of a checkpoint: with its standard error, or as a mean over replicas."""
    keys = [*QUANTITY, "run", "file", STEP, EPOCH]
    found = measured.groupby([*keys, CHECKPOINT], sort=False, dropna=False)
    rows = found.agg(value=(VALUE, "mean"), std=(VALUE, "std"), error=(STDERR, "mean"), n=(VALUE, "count"))
    rows = rows.reset_index().drop(columns=CHECKPOINT)
    if measured[REPLICA].nunique() > 1:
        return rows.rename(
            columns={"value": "mean ± std", "std": "mean ± std/stderr", "error": "stderr of one replica"}
        )
    return rows.drop(columns=["std", "n"]).rename(columns={"error": "value/stderr"})


def _plots(measured: pd.DataFrame) -> list[Plots]:
    """Return curves over the checkpoints of runs of which more than one was measured."""
    rows = measured[measured[STEP].notna()]
    rows = rows[rows.groupby("run")[STEP].transform("nunique") > 1]
    if rows.empty:
        return []
    units = rows.groupby(["run", REPLICA], sort=False).ngroup()
    rows = rows.astype({STEP: "int64"})
    labels = list(dict.fromkeys(rows["run"]))
    groups: dict[object, str] = dict(zip(units, rows["run"] if len(labels) > 1 else [""] * len(rows)))
    values, errors = (trajectories(rows, units, groups, column) for column in (VALUE, STDERR))
    alone = {label for label in groups.values() if list(groups.values()).count(label) == 1}
    found = [_with_errors(value, error, alone) for value, error in zip(values, errors)]
    kind = "value with standard error" if len(alone) == len(labels) else "mean and standard deviation over replicas"
    every = list(dict.fromkeys(groups.values()))
    shown = shown_labels(every)
    note = f"{len(shown)} of {len(every)} runs are drawn." if len(shown) < len(every) else ""
    return [plots(f"Over checkpoints: {kind}", found, shown, note)]


def _with_errors(values: Trajectory, errors: Trajectory, alone: set[str]) -> Trajectory:
    """Give curves of single networks standard errors instead of a spread, which they do not have."""
    curves: Sequence[Curve] = [
        Curve(curve.label, curve.steps, curve.mean, _band(error.mean) if curve.label in alone else curve.std)
        for curve, error in zip(values.curves, errors.curves)
    ]
    return Trajectory(values.name, values.layer, curves)


def _band(errors: np.ndarray) -> np.ndarray:
    """Return the errors along a curve: 0 where a number is exact, unless all numbers are exact."""
    return errors if np.isnan(errors).all() else np.nan_to_num(errors)


def _comparison(folder: Path) -> list[Table]:
    """Return tables of differences, of similarity, and of the line between A and B, as means over pairs.

    Raises:
        ValueError: a file is missing or damaged.
    """
    made = (
        _differences(read_analysis_table(folder / "differences.parquet", DIFFERENCES)),
        _similarity(read_analysis_table(folder / "similarity.parquet", SIMILARITY)),
        _line(read_analysis_table(folder / "path.parquet", PATH)),
    )
    return [table for table in made if table.rows]


def _differences(rows: pd.DataFrame) -> Table:
    headings = headlines_first(named_differences(rows))
    return table_of(headings, "Differences ± standard error", keep=[MEASURE, "A", "B", "B − A"], stacked=True)


def _similarity(rows: pd.DataFrame) -> Table:
    several = rows[SEED].nunique() > 1
    title = "How alike: mean ± standard deviation over pairs" if several else "How alike"
    return table_of(over_pairs(rows), title, keep=[MEASURE, VALUE], stacked=True)


def _line(rows: pd.DataFrame) -> Table:
    measured = measured_in(rows)
    found = rows.sort_values(SPLIT, kind="stable").groupby([SPLIT, POSITION], sort=False)[measured]
    means, spreads = found.mean(), found.std().rename(columns={name: f"{name}/stderr" for name in measured})
    several = rows[SEED].nunique() > 1
    title = "On the line from A (t = 0) to B (t = 1)" + (": mean ± standard deviation over pairs" if several else "")
    return table_of(means.join(spreads).reset_index(), title, keep=[POSITION, *measured])
