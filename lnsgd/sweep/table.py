"""The table of a sweep: a row for each cell, and everything that was measured."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lnsgd.sweep.cells import Cell
from lnsgd.sweep.folder import SweepFolder
from lnsgd.untrusted.tables import naming, read_arrow, read_parquet
from lnsgd.writing import whole_file

# Columns of the table that are not options or measures.
COLUMNS = {
    "status": "string",
    "reason": "string",
    "steps": "Int64",
    "epochs": "Int64",
    "seconds": "Float64",
    "device": "string",
    "lnsgd": "string",
    "torch": "string",
    "attempts": "Int64",
    "job": "string",
}

# Statuses of cells that have not been run to their end.
UNFINISHED = ("failed", "missing", "running")

_TRAJECTORY = ("cell", "step", "epoch", "split", "measure", "layer", "value", "stderr")


def load(folder: str | Path) -> pd.DataFrame:
    """The table of a sweep, at any time: a row for each cell of the grid, in its order.

    Columns are ``cell`` (the hash of its resolved config), its options by their names, ``status``, ``reason``,
    ``steps``, ``epochs``, ``seconds``, ``device``, versions of ``lnsgd`` and ``torch``, ``attempts``, ``job``, and the
    final measures as ``measure/split/layer`` with ``…/stderr`` where there is a standard error. The status is ``done``,
    ``limit`` (the limit of steps came before a stopping rule), ``diverged``, ``failed``, or, without a row so far,
    ``running`` or ``missing``. ``seconds`` of a replica are those of its job divided by the number of its replicas.

    Args:
        folder: The sweep's, such as ``runs/sweeps/mnist-noise``.

    Raises:
        ValueError: the folder holds no sweep.
    """
    sweep = _sweep(folder)
    planned = read_parquet(sweep.planned)
    with naming(sweep.planned):
        options = pd.DataFrame([json.loads(text) for text in planned.options], index=planned.cell).astype(object)
    options = options.infer_objects()
    found = _pieces(sweep, planned.cell)
    rows = found.reindex(planned.cell)
    running = _running(sweep)
    unfinished = rows.index[rows.status.isna()]
    rows.loc[unfinished, "status"] = ["running" if cell in running else "missing" for cell in unfinished]
    rows["reason"] = rows.reason.fillna("")
    return pd.concat([options, rows], axis=1).rename_axis("cell").reset_index()


def load_trajectories(folder: str | Path) -> pd.DataFrame:
    """Every number that a sweep has measured so far: cell, step, epoch, split, measure, layer, value, stderr.

    Args:
        folder: The sweep's, such as ``runs/sweeps/mnist-noise``.

    Raises:
        ValueError: the folder holds no sweep.
    """
    sweep = _sweep(folder)
    wanted = read_parquet(sweep.planned).cell
    tables = []
    for job, cells in _pieces(sweep, wanted).groupby("job").groups.items():
        path = sweep.trajectories(Path(str(job)).name)
        if path.exists():  # a job that failed has none
            tables.append(read_arrow(path).filter(pc.field("cell").isin(list(cells))))
    if not tables:
        return pd.DataFrame(columns=list(_TRAJECTORY))
    return pa.concat_tables(tables, promote_options="permissive").to_pandas()


def write_planned(sweep: SweepFolder, cells: Sequence[Cell]) -> None:
    """Keeps names and options of all cells."""
    options = [json.dumps(cell.options, ensure_ascii=False, default=str) for cell in cells]
    with whole_file(sweep.planned) as part:
        pd.DataFrame({"cell": [cell.name for cell in cells], "options": options}).to_parquet(part, index=False)


def complete_cells(sweep: SweepFolder, known: Mapping[str, Iterable[str]], but: Collection[str] = ()) -> set[str]:
    """Cells that have a row.

    Args:
        sweep: The folder.
        known: Cells of jobs, by the job's name: their pieces need not be read.
        but: Jobs that do not count.
    """
    found: set[str] = set()
    for path in _names(sweep):
        if path.stem in but:
            continue
        cells = known.get(path.stem)
        found.update(read_arrow(path, ["cell"]).column(0).to_pylist() if cells is None else cells)
    return found


def failed_jobs(sweep: SweepFolder) -> list[str]:
    """Jobs that have failed for good, and that nobody runs."""
    names = [path.stem for path in _names(sweep)]
    return [job for job in names if _has_failed(sweep, job) and not sweep.is_running(job)]


def forget_failed(sweep: SweepFolder) -> list[str]:
    """Lets jobs that have failed for good begin anew; gives their names."""
    return [job for job in failed_jobs(sweep) if sweep.forget(job, lambda name: _has_failed(sweep, name))]


def _has_failed(sweep: SweepFolder, job: str) -> bool:
    piece = sweep.piece(job)
    return piece.exists() and "failed" in read_arrow(piece, ["status"]).column(0).to_pylist()


def _sweep(folder: str | Path) -> SweepFolder:
    sweep = SweepFolder(Path(folder))
    if not sweep.planned.exists():
        raise ValueError(f"{folder} holds no sweep; give the folder that `lnsgd sweep` wrote, such as runs/sweeps/NAME")
    return sweep


def _names(sweep: SweepFolder) -> list[Path]:
    return sorted(sweep.pieces.glob("[!.]*.parquet"))


def _pieces(sweep: SweepFolder, wanted: "pd.Series[Any]") -> pd.DataFrame:
    """All rows there are, by cell; of a cell that was run in two jobs that which did not fail, or was written first."""
    paths = sorted(_names(sweep), key=lambda path: path.stat().st_mtime_ns)
    if not paths:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    table = pa.concat_tables([read_arrow(path) for path in paths], promote_options="permissive").to_pandas()
    table = table[table.cell.isin(wanted)].sort_values("status", key=lambda status: status == "failed", kind="stable")
    table = table.drop_duplicates("cell").set_index("cell").drop(columns="options")
    measures = [name for name in table.columns if name not in COLUMNS]
    return table.astype(COLUMNS)[[*COLUMNS, *measures]]


def _running(sweep: SweepFolder) -> set[str]:
    jobs = [job for job in sweep.planned_jobs() if not sweep.piece(job).exists() and sweep.is_running(job)]
    return {cell for job in jobs for cell, _ in sweep.read_job(job).cells}
