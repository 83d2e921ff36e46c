"""What ``lnsgd analyze`` has written as a section: measures of checkpoints, or two networks against each other."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lnsgd.messages import counted
from lnsgd.report.comparison_tables import comparison_tables, is_comparison
from lnsgd.report.content import Plots, Section, Table
from lnsgd.report.ended import facts, read_ended
from lnsgd.report.plot import plots
from lnsgd.report.reading import read_parquet, read_picture
from lnsgd.report.tables import table_of
from lnsgd.report.trajectories import Curve, Trajectory, shown_labels, trajectories

COLUMNS = ("checkpoint", "step", "epoch", "replica", "split", "measure", "layer", "value", "stderr")


def is_analysis(folder: Path) -> bool:
    """Whether ``lnsgd analyze``, also with ``--compare``, has come to its end here."""
    return _table(folder).is_file() or is_comparison(folder)


def analyses_in(folder: Path) -> list[Path]:
    """The analyses in the folder of a run: in itself, or in folders in it."""
    within = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [path for path in (folder, *within) if is_analysis(path)]


def read_analysis(folder: Path) -> Section:
    """The section of an analysis or a comparison, or of both in one folder.

    Raises:
        ValueError: a file is damaged.
    """
    name, path = folder.resolve().name, _table(folder)
    measured = _read(path) if path.exists() else pd.DataFrame(columns=[*COLUMNS, "run", "file"])
    runs = list(dict.fromkeys(measured["run"]))
    networks = len(measured[["checkpoint", "replica"]].drop_duplicates())
    compared = comparison_tables(folder) if is_comparison(folder) else []
    said = [f"{counted(networks, 'network')}, {counted(len(measured), 'number')}"] if runs else []
    return Section(
        kind="analysis" if runs else "comparison",
        name=name,
        path=str(folder),
        lead=f"Checkpoints of {', '.join(runs)}." if runs else "",
        state="; ".join([*said, *(["A against B"] if compared else [])]),
        facts=[fact for name in ("analysis", "comparison") for fact in _ended(folder / f"{name}.json")],
        tables=[*_measures(measured), *compared],
        plots=_plots(measured),
        pictures=[read_picture(file, f"{file.stem} of {name}") for file in sorted(folder.glob("[!.]*.png"))],
    )


def _ended(path: Path) -> list[tuple[str, str]]:
    return facts(read_ended(path), path)


def _table(folder: Path) -> Path:
    return folder / "analysis.parquet"


def _read(path: Path) -> pd.DataFrame:
    """The table, with of which run each row is (or in which folder the file lies), and the file's name."""
    table = read_parquet(path, COLUMNS)
    folders = {text: _home(Path(text)) for text in table["checkpoint"].unique()}
    names = Counter(folder.name for folder in set(folders.values()))
    runs = {text: folder.name if names[folder.name] == 1 else str(folder) for text, folder in folders.items()}
    files = table["checkpoint"].map(lambda text: Path(text).name)
    return table.assign(run=table["checkpoint"].map(runs), file=files)


def _home(file: Path) -> Path:
    """The folder of a run, or of a file that belongs to none."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def _measures(measured: pd.DataFrame) -> list[Table]:
    """Each run's last checkpoint, and where there are others all of them: what is final comes first."""
    if measured.empty:
        return []
    rows = _over_replicas(measured)
    last = rows["step"].isna() | (rows["step"] == rows.groupby("run")["step"].transform("max"))
    kind = "mean ± standard deviation over replicas" if "mean ± std" in rows else "value ± standard error"
    if last.all():
        return [table_of(rows, f"Measures: {kind}", keep=["measure"])]
    return [
        table_of(rows[last], f"Last checkpoint: {kind}", keep=["measure"]),
        table_of(rows, f"Every checkpoint: {kind}", keep=["measure", "step"]),
    ]


def _over_replicas(measured: pd.DataFrame) -> pd.DataFrame:
    """A row for each number of a checkpoint: of a single network with its error, else a mean over replicas."""
    keys = ["measure", "split", "layer", "run", "file", "step", "epoch"]
    found = measured.groupby([*keys, "checkpoint"], sort=False, dropna=False)
    rows = found.agg(
        value=("value", "mean"), std=("value", "std"), stderr=("stderr", "mean"), n=("value", "count")
    ).reset_index()
    rows = rows.drop(columns="checkpoint")
    if measured["replica"].nunique() > 1:
        return rows.rename(
            columns={"value": "mean ± std", "std": "mean ± std/stderr", "stderr": "stderr of one replica"}
        )
    return rows.drop(columns=["std", "n"]).rename(columns={"stderr": "value/stderr"})


def _plots(measured: pd.DataFrame) -> list[Plots]:
    """Curves over the checkpoints of runs of which several were measured."""
    rows = measured[measured["step"].notna()]
    rows = rows[rows.groupby("run")["step"].transform("nunique") > 1]
    if rows.empty:
        return []
    rows = rows.assign(unit=rows.groupby(["run", "replica"], sort=False).ngroup(), step=rows["step"].astype("int64"))
    labels = list(dict.fromkeys(rows["run"]))
    groups: dict[object, str] = dict(zip(rows["unit"], rows["run"] if len(labels) > 1 else [""] * len(rows)))
    values = trajectories(rows, groups)
    errors = trajectories(rows.assign(value=rows["stderr"]), groups)
    alone = {label for label in groups.values() if list(groups.values()).count(label) == 1}
    found = [_with_errors(value, error, alone) for value, error in zip(values, errors)]
    kind = "value with standard error" if len(alone) == len(labels) else "mean and standard deviation over replicas"
    every = list(dict.fromkeys(groups.values()))
    shown = shown_labels(every)
    note = f"{len(shown)} of {len(every)} runs are drawn." if len(shown) < len(every) else ""
    return [plots(f"Over checkpoints: {kind}", found, shown, note)]


def _with_errors(values: Trajectory, errors: Trajectory, alone: set[str]) -> Trajectory:
    """Curves of single networks with standard errors in place of a spread that they do not have."""
    curves: Sequence[Curve] = [
        Curve(curve.label, curve.steps, curve.mean, _band(error.mean) if curve.label in alone else curve.std)
        for curve, error in zip(values.curves, errors.curves)
    ]
    return Trajectory(values.name, values.layer, curves)


def _band(errors: np.ndarray) -> np.ndarray:
    """Errors along a curve: 0 where a number happens to be exact, unless all are."""
    return errors if np.isnan(errors).all() else np.nan_to_num(errors)
