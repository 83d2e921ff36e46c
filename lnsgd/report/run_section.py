"""The section of a run: how it ended, and what was measured over training and at its end."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lnsgd.records.changes import read_changes
from lnsgd.records.headlines import headlines_of, performance
from lnsgd.records.measures import (
    MEASURE,
    QUANTITY,
    REPLICA,
    STDERR,
    STEP,
    VALUE,
    final,
    headlines_first,
    is_tidy,
    no_measures,
    read_measures,
    with_weights_in_names,
)
from lnsgd.records.metrics import read_metrics
from lnsgd.records.provenance import Provenance, read_provenance
from lnsgd.records.replicas import SEED, diverged_replicas, read_replicas, setting_names
from lnsgd.report.content import Plots, Section, Table, Text
from lnsgd.report.facts import facts_in
from lnsgd.report.kinds import ANALYSIS, analyses_in
from lnsgd.report.plot import plots
from lnsgd.report.reading import read_picture, read_text
from lnsgd.report.tables import table_of
from lnsgd.report.trajectories import label_of, logged, shown_labels, trajectories
from lnsgd.runs.folder import RunFolder
from lnsgd.untrusted.tables import read_parquet

# The most rows of a computed table that are shown; claims are made of them, and nobody looks at all.
_COMPUTED_ROWS = 1000


def read_run(folder: Path) -> Section:
    """Return the section of a run.

    Raises:
        ValueError: a file is damaged.
    """
    run = RunFolder(folder)
    name = folder.resolve().name
    ended = read_provenance(run.finished) if run.finished.exists() else None
    replicas = read_replicas(run.replicas, as_text=True) if run.replicas.exists() else pd.DataFrame()
    table = _measured(run)
    tidy = is_tidy(table)
    groups = _groups(table, replicas) if tidy else {}
    pictures = sorted(run.figures.rglob("*.png")) if run.figures.is_dir() else []
    return Section(
        kind="run",
        name=name,
        path=str(folder),
        state=_state(ended),
        results=_results(run, table, replicas, groups) if tidy else [],
        facts=facts_in(run.finished),
        notes=[*(["The run has not reached its end."] if ended is None else []), *_changes(run)],
        pictures=[read_picture(path, _alt(path.relative_to(run.figures), name)) for path in pictures],
        tables=[*_replicas(replicas), *(_final_measures(table, replicas, groups) if tidy else _computed(table))],
        plots=_plots(run, table, groups) if tidy else [],
        texts=[Text("Config, resolved", read_text(run.config))] if run.config.exists() else [],
        parts=[ANALYSIS.read(path) for path in analyses_in(folder)],
    )


def _changes(run: RunFolder) -> list[str]:
    """Say with which other options the run was resumed; its ``config.yaml`` has those with which it was started."""
    return [f"Options changed {change}." for change in read_changes(run)]


def _measured(run: RunFolder) -> pd.DataFrame:
    """Read what a run has measured, or what a figure has computed: a table with columns of its own, and no config."""
    if not run.measures.exists():
        return no_measures()
    table = read_measures(run.measures) if run.config.exists() else read_parquet(run.measures)
    return with_weights_in_names(table) if is_tidy(table) else table


def _results(
    run: RunFolder, measured: pd.DataFrame, replicas: pd.DataFrame, groups: Mapping[object, str]
) -> list[tuple[str, str]]:
    """Return the headline measures and the performance; nothing where replicas differ in more than their seed."""
    if len(set(groups.values())) > 1:
        return []
    found = [(one.name, one.change) for one in headlines_of(measured, diverged_replicas(replicas))]
    shown = performance(run.metrics) if run.metrics.exists() else None
    return found if shown is None else [*found, shown]


def _state(ended: Provenance | None) -> str:
    if ended is None:
        return "not finished"
    return "computed" if ended.steps is None else f"{ended.steps:,} steps"


def _alt(path: Path, run: str) -> str:
    return f"{path.with_suffix('')} of run {run}"


def _replicas(replicas: pd.DataFrame) -> list[Table]:
    """Return a table of the replicas, unless they differ only in the seed."""
    table = table_of(_numbers_where_possible(replicas), "Replicas", keep=[REPLICA])
    return [table] if {column.name for column in table.columns} - {REPLICA, SEED} else []


def _numbers_where_possible(texts: pd.DataFrame) -> pd.DataFrame:
    """Convert columns of texts to numbers where every filled field is a number."""
    filled = texts.replace("", None)
    numbers = filled.apply(pd.to_numeric, errors="coerce")
    fits = [str(name) for name in texts if numbers[name].notna().sum() == filled[name].notna().sum()]
    return filled.assign(**{name: numbers[name].convert_dtypes() for name in fits})


def _groups(measured: pd.DataFrame, replicas: pd.DataFrame) -> dict[object, str]:
    """Return for each replica the settings in which it differs from others, seeds aside; of an ordinary run nothing."""
    units = measured[REPLICA]
    if replicas.empty:
        return dict.fromkeys(units.unique(), "")
    settings = [name for name in setting_names(replicas) if replicas[name].nunique() > 1]
    labels = {
        int(row[REPLICA]): label_of(",".join(f"{name}={row[name] or None}" for name in settings))
        for row in replicas.to_dict("records")
    }
    return {unit: labels.get(unit, "") for unit in [*labels, *(set(units) - set(labels))]}


def _computed(table: pd.DataFrame) -> list[Table]:
    return [table_of(table, "Computed", keep=[str(name) for name in table], most=_COMPUTED_ROWS)]


def _final_measures(measured: pd.DataFrame, replicas: pd.DataFrame, groups: Mapping[object, str]) -> list[Table]:
    """Return the final measures: with their standard errors, or mean ± standard deviation over replicas.

    Replicas that have diverged do not count, as in the table of a sweep.

    Args:
        measured: Rows of ``measures.parquet``.
        replicas: Rows of ``replicas.csv``; empty for an ordinary run.
        groups: For each replica the label of its group.
    """
    rows = measured[~measured[REPLICA].isin(diverged_replicas(replicas))]
    if rows.empty:
        return []
    last = final(rows).assign(group=lambda part: part[REPLICA].map(groups))
    found = last.groupby([*QUANTITY, "group"], sort=False)
    of_all = found.agg(
        first=(STEP, "min"),
        step=(STEP, "max"),
        last=(VALUE, "mean"),
        std=(VALUE, "std"),
        error=(STDERR, "mean"),
        n=(VALUE, "count"),
    ).reset_index()
    order = rows.drop_duplicates(list(QUANTITY)).assign(order=lambda part: range(len(part)))[[*QUANTITY, "order"]]
    of_all = of_all.merge(order, on=list(QUANTITY)).sort_values("order", kind="stable").drop(columns="order")
    of_all = headlines_first(of_all)
    of_all = of_all.assign(step=_steps(of_all["first"], of_all[STEP])).drop(columns="first")
    if (of_all["n"] > 1).any():
        names = {"last": "mean ± std", "std": "mean ± std/stderr", "error": "stderr of one replica"}
        title = "Final measures: mean ± standard deviation over replicas"
        return [table_of(of_all.rename(columns=names), title, keep=[MEASURE], stacked=True)]
    of_all = of_all.drop(columns=["std", "n"]).rename(columns={"last": "value", "error": "value/stderr"})
    return [table_of(of_all, "Final measures: value ± standard error", keep=[MEASURE], stacked=True)]


def _steps(first: pd.Series, last: pd.Series) -> list[int | str]:
    """Return the step of each number, or between which steps the replicas have it."""
    return [int(b) if a == b else f"{a} to {b}" for a, b in zip(first, last)]


def _plots(run: RunFolder, measured: pd.DataFrame, groups: Mapping[object, str]) -> list[Plots]:
    found = trajectories(measured, measured[REPLICA], groups) if len(measured) else []
    if run.metrics.exists():
        metrics = read_metrics(run.metrics)
        found += logged(metrics, [trajectory.name for trajectory in found])
    if not found:
        return []
    every = list(dict.fromkeys([*groups.values(), *(curve.label for t in found for curve in t.curves)]))
    labels = shown_labels(every)
    note = f"{len(labels)} of {len(every)} groups of replicas are drawn." if len(labels) < len(every) else ""
    several = len(groups) > len(set(groups.values()))
    title = "Over training: mean and standard deviation over replicas" if several else "Over training"
    return [plots(title, found, labels, note)]
