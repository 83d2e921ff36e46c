"""Tables of a sweep: ``planned.parquet``; of each job ``cells/<job>.parquet`` and ``trajectories/<job>.parquet``."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsgd.records.measures import COLUMNS as MEASURES
from lnsgd.records.measures import HEADLINES, REPLICA, SPLITS, STDERR, WHOLE, final, with_weights
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import REMEDY, naming, read_arrow, read_parquet

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# The table of a sweep in plain Python, values by the name of their column, for commands that do without pandas.
Columns = Mapping[str, Sequence[Any]]

# The first two columns: the name of the cell (a hash of its resolved config), and its options as JSON.
CELL, OPTIONS = "cell", "options"

# The columns that follow in ``cells/<job>.parquet``; final measures come after these.
STATUS, REASON, ATTEMPTS, JOB = "status", "reason", "attempts", "job"
COLUMNS = {
    STATUS: "string",
    REASON: "string",
    "steps": "Int64",
    "epochs": "Int64",
    "seconds": "Float64",
    "device": "string",
    "lnsgd": "string",
    "torch": "string",
    ATTEMPTS: "Int64",
    JOB: "string",
}

# Columns of ``trajectories/<job>.parquet``: those of ``measures.parquet``, with the cell instead of the replica.
TRAJECTORIES = (CELL, *(name for name in MEASURES if name != REPLICA))

# How a cell may end, from good to bad: its run reached its end; the limit of steps came before a stopping rule; its
# weights or loss were not finite; every attempt ended in an error. Cells without a row are running or missing.
DONE, LIMIT, DIVERGED, FAILED, RUNNING, MISSING = "done", "limit", "diverged", "failed", "running", "missing"
STATUSES = (DONE, LIMIT, DIVERGED, FAILED, RUNNING, MISSING)

# Statuses of cells that have not been run to their end, and of those whose final measures are of a trained network.
UNFINISHED = (FAILED, MISSING, RUNNING)
TRAINED = (DONE, LIMIT)


def write_planned(cells: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> None:
    """Write ``planned.parquet``.

    Args:
        cells: Name and options of every cell, in the order of the grid.
        path: The file; written whole or not at all.
    """
    import pandas as pd

    options = [json.dumps(options, ensure_ascii=False, default=str) for _, options in cells]
    with whole_file(path) as part:
        pd.DataFrame({CELL: [name for name, _ in cells], OPTIONS: options}).to_parquet(part, index=False)


def read_planned(path: Path) -> dict[str, dict[str, Any]]:
    """Read the options of every cell, by the name of the cell, in the order of the grid.

    Args:
        path: A ``planned.parquet``.

    Raises:
        ValueError: the file is missing or damaged.
    """
    with naming(path):
        found = read_arrow(path, [CELL, OPTIONS])
        cells, texts = (found.column(name).to_pylist() for name in (CELL, OPTIONS))
        options = dict(zip(cells, map(json.loads, texts)))
        if not all(isinstance(one, dict) for one in options.values()):
            raise UnreadableError("the options of a cell are not an object")
    return options


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """How a cell ended: the columns ``COLUMNS`` of its row. What is not known is ``None``.

    Attributes:
        status: One of ``STATUSES``.
        reason: Why it has that status; empty if it reached its end.
        steps: Optimizer steps taken.
        epochs: Epochs trained.
        seconds: Time of its run; of a replica, the time of the run divided by the number of replicas.
        device: Name of the device.
        lnsgd: Version of lnsgd.
        torch: Version of torch.
        attempts: Number of attempts at its job.
        job: Name of its job.
    """

    status: str
    reason: str = ""
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    device: str | None = None
    lnsgd: str | None = None
    torch: str | None = None
    attempts: int | None = None
    job: str | None = None


def write_cells(rows: Sequence[tuple[str, Mapping[str, Any], CellResult, Mapping[str, float]]], path: Path) -> None:
    """Write ``cells/<job>.parquet``.

    Args:
        rows: For each cell of the job its name, its options, how it ended, and its final measures as
            ``lnsgd.measuring.measurement.scalars`` names them.
        path: The file; written whole or not at all.
    """
    import pandas as pd

    table = pd.DataFrame(
        [
            {CELL: name, OPTIONS: json.dumps(options, ensure_ascii=False), **asdict(result), **measures}
            for name, options, result, measures in rows
        ]
    )
    with whole_file(path) as part:
        table.astype(COLUMNS).to_parquet(part, index=False)


def read_cells(paths: Sequence[Path], wanted: Collection[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read the rows of several jobs, one row per cell.

    If two jobs ran the same cell, the row of the job that did not fail is kept; if both succeeded, the first.

    Args:
        paths: Files ``cells/<job>.parquet``, in the order in which they were written.
        wanted: Names of the cells that count.

    Returns:
        The rows by the name of the cell, with the columns ``COLUMNS`` and final measures; and the names of all final
        measures with their standard errors, in the order of the files.

    Raises:
        ValueError: a file is damaged, or a column holds values of another kind than lnsgd writes.
    """
    kept, measures = set(wanted), dict[str, None]()
    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        found = read_arrow(path)
        with naming(path):
            _check_kinds(found)
        measures.update(dict.fromkeys(name for name in found.column_names if name not in (CELL, OPTIONS, *COLUMNS)))
        for row in found.to_pylist():
            cell = row.pop(CELL)
            if cell in kept and (cell not in rows or (rows[cell][STATUS] == FAILED and row[STATUS] != FAILED)):
                rows[cell] = row
    return rows, list(measures)


def _check_kinds(table: "pa.Table") -> None:
    """Raise UnreadableError unless texts are texts and all other columns hold numbers, or nothing."""
    import pyarrow as pa

    texts = {CELL, OPTIONS, *(name for name, kind in COLUMNS.items() if kind == "string")}
    if missing := [name for name in (CELL, *COLUMNS) if name not in table.column_names]:
        raise UnreadableError(f"it has no column {missing[0]!r}")
    for field in table.schema:
        kinds = ("string", "large_string") if field.name in texts else ("floating", "integer")
        if not any(getattr(pa.types, f"is_{kind}")(field.type) for kind in (*kinds, "null")):
            raise UnreadableError(f"its column {field.name!r:.60} holds {field.type}")


def cells_in(path: Path) -> list[str]:
    """Read the names of the cells in ``cells/<job>.parquet``.

    Args:
        path: The file.
    """
    names: list[str] = read_arrow(path, [CELL]).column(0).to_pylist()
    return names


def has_failed(path: Path) -> bool:
    """Whether a cell in ``cells/<job>.parquet`` has failed for good.

    Args:
        path: The file.
    """
    return FAILED in read_arrow(path, [STATUS]).column(0).to_pylist()


def option_names(table: "pd.DataFrame | Columns") -> list[str]:
    """Return the options of the grid among the columns of a sweep's table.

    Args:
        table: What `lnsgd.sweep.load` returns, or its columns.
    """
    names = [str(name) for name in table]
    return names[names.index(CELL) + 1 : names.index(STATUS)]


def measure_names(table: "pd.DataFrame | Columns") -> list[str]:
    """Return the final measures among the columns of a sweep's table, without their standard errors.

    Args:
        table: What `lnsgd.sweep.load` returns, or its columns.
    """
    others = {CELL, *option_names(table), *COLUMNS}
    return [name for name in map(str, table) if name not in others and not name.endswith(f"/{STDERR}")]


def headline_names(names: Sequence[str]) -> list[str]:
    """Return the headline measures of whole networks on the training set, then the error on the validation set.

    A measure that was not taken on that split counts with another one.

    Args:
        names: What `measure_names` returns.
    """
    found = []
    for measure, wanted in (*((measure, "train") for measure in HEADLINES), ("error", "val")):
        parts = [(name, split_name(name)) for name in names]
        splits = {split: name for name, (of, split, layer) in parts if of == measure and layer in WHOLE}
        found += [splits.get(wanted, next(iter(splits.values())))] if splits else []
    return found


def split_name(name: str) -> tuple[str, str, str]:
    """Return measure, split and layer of the name of a final measure, such as ``active_fraction/train/total``.

    Args:
        name: One of what `measure_names` returns.
    """
    measure, _, rest = name.partition("/")
    split, _, layer = rest.partition("/")
    return (measure, split, layer) if split in SPLITS else (measure, "", rest)


def write_trajectories(measured: "pd.DataFrame", cells: Sequence[str], path: Path) -> None:
    """Write ``trajectories/<job>.parquet``.

    Args:
        measured: Rows of the ``measures.parquet`` of the job's run.
        cells: Name of the cell of each replica.
        path: The file; written whole or not at all.
    """
    names = measured[REPLICA].map(dict(enumerate(cells))).astype("string")
    with whole_file(path) as part:
        measured.assign(**{CELL: names})[list(TRAJECTORIES)].to_parquet(part, index=False)


def read_trajectories(paths: "Sequence[tuple[Path, Sequence[str]]]") -> "pd.DataFrame":
    """Read every number that was measured: the columns are ``TRAJECTORIES``.

    Args:
        paths: Files ``trajectories/<job>.parquet``, each with the cells of it that count.

    Raises:
        ValueError: a file is damaged.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    tables: list[pa.Table] = [read_arrow(path).filter(pc.field(CELL).isin(list(cells))) for path, cells in paths]
    if not tables:
        return pd.DataFrame(columns=list(TRAJECTORIES))
    return with_weights(pa.concat_tables(tables, promote_options="permissive").to_pandas())


def read_cell_table(path: Path) -> "pd.DataFrame":
    """Read one of the tables as it stands.

    Args:
        path: Any of the files.

    Raises:
        ValueError: the file is missing or damaged, or does not say of which cell its rows are.
    """
    table = read_parquet(path)
    if CELL not in table:
        raise ValueError(f"{path} has no column {CELL!r}; {REMEDY}")
    return table


def final_measures(measured: "pd.DataFrame", replica: int) -> dict[str, float]:
    """Return the final measures of one replica by their names in loggers, see `lnsgd.records.measures.final`.

    Args:
        measured: Rows of ``measures.parquet``.
        replica: Number of the replica.
    """
    from lnsgd.measuring.measurement import Measurement, scalars

    last = final(measured[measured[REPLICA] == replica])
    rows = last[list(Measurement._fields)].itertuples(index=False, name=None)
    return scalars(Measurement(*row) for row in rows)
