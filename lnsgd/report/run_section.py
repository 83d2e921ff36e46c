"""A run's folder as a section: how it ended, what was measured, over training and at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lnsgd.report.analysis_section import analyses_in, read_analysis
from lnsgd.report.content import Plots, Section, Table, Text
from lnsgd.report.ended import facts, read_ended
from lnsgd.report.plot import plots
from lnsgd.report.reading import read_csv, read_parquet, read_picture, read_text, with_columns
from lnsgd.report.tables import table_of
from lnsgd.report.trajectories import label_of, logged, shown_labels, trajectories
from lnsgd.run_folder import RunFolder

MEASURES = ("step", "split", "measure", "layer", "value", "stderr")

# Columns of replicas.csv in which replicas may differ though they are runs of the same settings.
_NO_SETTINGS = ("replica", "seed", "diverged_at", "stopped_at", "stopped_by")

# Such tables are what claims are made of, not what is looked at.
_COMPUTED_ROWS = 1000


def is_run(folder: Path) -> bool:
    """Whether a run, finished or not, or a figure's computation, has left its files here."""
    run = RunFolder(folder)
    begun = (run.init, run.metrics, run.finished)
    return run.measures.is_file() or (run.config.is_file() and any(path.is_file() for path in begun))


def read_run(folder: Path) -> Section:
    """The section of a run.

    Raises:
        ValueError: a file is damaged.
    """
    run = RunFolder(folder)
    name = folder.resolve().name
    ended = read_ended(run.finished)
    replicas = _read_replicas(run.replicas)
    table = read_parquet(run.measures) if run.measures.exists() else pd.DataFrame(columns=list(MEASURES))
    if run.config.exists():
        with_columns(run.measures, table, MEASURES)
    # A figure that computes leaves a table with columns of its own, and nothing else.
    tidy = set(MEASURES) <= set(table)
    groups = _groups(table, replicas) if tidy else {}
    pictures = sorted(run.figures.rglob("*.png")) if run.figures.is_dir() else []
    return Section(
        kind="run",
        name=name,
        path=str(folder),
        state=_state(ended),
        facts=facts(ended, run.finished),
        notes=[] if ended else ["It has not reached its end."],
        pictures=[read_picture(path, _alt(path.relative_to(run.figures), name)) for path in pictures],
        tables=[*_replicas(replicas), *(_final_measures(table, groups) if tidy else _computed(table))],
        plots=_plots(run, table, groups) if tidy else [],
        texts=[Text("Config, resolved", read_text(run.config))] if run.config.exists() else [],
        parts=[read_analysis(path) for path in analyses_in(folder)],
    )


def _state(ended: Mapping[str, Any]) -> str:
    if not ended:
        return "not finished"
    return f"{ended['steps']:,} steps" if "steps" in ended else "computed"


def _alt(path: Path, run: str) -> str:
    return f"{path.with_suffix('')} of run {run}"


def _read_replicas(path: Path) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame()
    replicas = read_csv(path, ["replica"], as_text=True)
    if not replicas["replica"].str.fullmatch(r"\d+").all():
        raise ValueError(f"{path} has replicas without a number; make it again, or leave this folder out")
    return replicas


def _replicas(replicas: pd.DataFrame) -> list[Table]:
    """The replicas, where there is more to say of them than their seeds."""
    table = table_of(_numbers_where_possible(replicas), "Replicas", keep=["replica"])
    return [table] if {column.name for column in table.columns} - {"replica", "seed"} else []


def _numbers_where_possible(texts: pd.DataFrame) -> pd.DataFrame:
    """Columns of texts in which every filled field is a number, as numbers."""
    filled = texts.replace("", None)
    numbers = filled.apply(pd.to_numeric, errors="coerce")
    fits = [str(name) for name in texts if numbers[name].notna().sum() == filled[name].notna().sum()]
    return filled.assign(**{name: numbers[name].convert_dtypes() for name in fits})


def _groups(measured: pd.DataFrame, replicas: pd.DataFrame) -> dict[object, str]:
    """For each replica the settings in which it differs from others, seeds aside; of an ordinary run nothing."""
    units = _units(measured)
    if replicas.empty:
        return dict.fromkeys(units.unique(), "")
    settings = [str(name) for name in replicas if name not in _NO_SETTINGS and replicas[name].nunique() > 1]
    labels = {
        int(row["replica"]): label_of(",".join(f"{name}={row[name] or None}" for name in settings))
        for row in replicas.to_dict("records")
    }
    return {unit: labels.get(unit, "") for unit in [*labels, *(set(units) - set(labels))]}


def _units(measured: pd.DataFrame) -> "pd.Series[Any]":
    """What is a run of its own: a replica; of what was computed a seed."""
    if found := [name for name in ("replica", "seed") if name in measured]:
        return measured[found[0]]
    return pd.Series(0, index=measured.index)


def _computed(table: pd.DataFrame) -> list[Table]:
    return [table_of(table, "Computed", keep=[str(name) for name in table], most=_COMPUTED_ROWS)]


def _final_measures(measured: pd.DataFrame, groups: Mapping[object, str]) -> list[Table]:
    """The last value of every measure: with its standard error, or mean ± standard deviation over replicas.

    Args:
        measured: With the columns `MEASURES`, and perhaps replica or seed.
        groups: For each replica that counts, the label of its group.
    """
    if measured.empty:
        return []
    rows = measured.assign(unit=_units(measured), group=_units(measured).map(groups)).dropna(subset="group")
    keys = ["measure", "split", "layer"]
    last = rows.sort_values("step", kind="stable").drop_duplicates([*keys, "unit"], keep="last")
    last = last[last["step"] == last.groupby(keys)["step"].transform("max")]
    found = last.groupby([*keys, "group"], sort=False)
    of_all = found.agg(
        step=("step", "max"),
        last=("value", "mean"),
        std=("value", "std"),
        stderr=("stderr", "mean"),
        n=("value", "count"),
    ).reset_index()
    order = rows.drop_duplicates(keys).assign(order=lambda part: range(len(part)))[[*keys, "order"]]
    of_all = of_all.merge(order, on=keys).sort_values("order", kind="stable").drop(columns="order")
    if (of_all["n"] > 1).any():
        of_all = of_all.rename(
            columns={"last": "mean ± std", "std": "mean ± std/stderr", "stderr": "stderr of one replica"}
        )
        title = "Final measures: mean ± standard deviation over replicas"
    else:
        of_all = of_all.drop(columns=["std", "n"]).rename(columns={"last": "value", "stderr": "value/stderr"})
        title = "Final measures: value ± standard error"
    return [table_of(of_all, title, keep=["measure"])]


def _plots(run: RunFolder, measured: pd.DataFrame, groups: Mapping[object, str]) -> list[Plots]:
    found = trajectories(measured.assign(unit=_units(measured)), groups) if len(measured) else []
    if run.metrics.exists():
        metrics = read_csv(run.metrics, ["step"])
        if not pd.api.types.is_numeric_dtype(metrics["step"]):
            raise ValueError(f"{run.metrics} has steps that are no numbers; make it again, or leave this folder out")
        found += logged(metrics, [trajectory.name for trajectory in found])
    if not found:
        return []
    every = list(dict.fromkeys([*groups.values(), *(curve.label for t in found for curve in t.curves)]))
    labels = shown_labels(every)
    note = f"{len(labels)} of {len(every)} groups of replicas are drawn." if len(labels) < len(every) else ""
    several = len(groups) > len(set(groups.values()))
    title = "Over training: mean and standard deviation over replicas" if several else "Over training"
    return [plots(title, found, labels, note)]
