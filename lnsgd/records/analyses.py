"""Tables of an analysis: ``analysis.parquet``, and those of a comparison of two networks or arms A and B."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lnsgd.records.measures import MEASURE, QUANTITY, SPLIT, STDERR, VALUE, WEIGHTS, with_weights
from lnsgd.untrusted.tables import REMEDY, read_parquet

if TYPE_CHECKING:
    import pandas as pd

    from lnsgd.measuring import Measurement

# Columns of analysis.parquet and how they are kept; step and epoch are missing where a file does not say them.
CHECKPOINT = "checkpoint"
COLUMNS = {
    CHECKPOINT: "string",
    "step": "Int64",
    "epoch": "Int64",
    "replica": "int64",
    SPLIT: "string",
    MEASURE: "string",
    "layer": "string",
    VALUE: "float64",
    STDERR: "float64",
    WEIGHTS: "string",
}

# Columns of similarity.parquet and of path.parquet, which has one more for each of loss and error where they are known.
SEED, POSITION = "seed", "t"
SIMILARITY = (SEED, SPLIT, MEASURE, "layer", VALUE)
PATH = (SEED, SPLIT, POSITION)


class Difference(NamedTuple):
    """A number of two networks A and B; a row of ``differences.parquet``, which also has the number of pairs.

    Attributes:
        split: See `lnsgd.measuring.Measurement`.
        measure: See there.
        layer: See there.
        a: Value of A.
        b: Value of B.
        difference: b − a.
        stderr: Standard error of the difference; NaN where it is exact.
        stderr_a: Standard error of a.
        stderr_b: Standard error of b.
    """

    split: str
    measure: str
    layer: str
    a: float
    b: float
    difference: float
    stderr: float
    stderr_a: float
    stderr_b: float


DIFFERENCES = (*Difference._fields, "pairs")


def checkpoint_rows(
    checkpoint: Path, step: int | None, epoch: int | None, replica: int, measurements: "Sequence[Measurement]"
) -> list[dict[str, Any]]:
    """Return the rows of ``analysis.parquet`` for the measurements of one network.

    Args:
        checkpoint: The file that holds the network.
        step: Optimizer steps taken; ``None`` where the file does not say it.
        epoch: Its epoch; ``None`` where the file does not say it.
        replica: Number of the network in the file.
        measurements: What was measured of the network.
    """
    where = {CHECKPOINT: str(checkpoint), "step": step, "epoch": epoch, "replica": replica}
    return [{**where, **measurement._asdict()} for measurement in measurements]


def analysis_table(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return the table of ``analysis.parquet``.

    Args:
        rows: What `checkpoint_rows` returns, for all networks.
    """
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)


def differences_table(rows: "Sequence[tuple[Difference, int]]") -> "pd.DataFrame":
    """Return the table of ``differences.parquet``.

    Args:
        rows: Each number with the number of pairs that it is the mean of.
    """
    import pandas as pd

    return pd.DataFrame([(*difference, pairs) for difference, pairs in rows], columns=list(DIFFERENCES))


def differences_of(table: "pd.DataFrame") -> list[Difference]:
    """Return the rows of ``differences.parquet``, without the number of pairs.

    Args:
        table: Some of its rows.
    """
    return [Difference(*row) for row in table[list(Difference._fields)].itertuples(index=False, name=None)]


def similarity_rows(seed: int, found: "Sequence[Measurement]") -> list[dict[str, Any]]:
    """Return the rows of ``similarity.parquet`` for one pair.

    Args:
        seed: Seed of the pair.
        found: How alike its networks are.
    """
    return [{SEED: seed, SPLIT: row.split, MEASURE: row.measure, "layer": row.layer, VALUE: row.value} for row in found]


def similarity_table(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return the table of ``similarity.parquet``.

    Args:
        rows: What `similarity_rows` returns, for all pairs.
    """
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(SIMILARITY))


def path_row(seed: int, split: str, t: float, measured: Mapping[str, float]) -> dict[str, Any]:
    """Return a row of ``path.parquet``.

    Args:
        seed: Seed of the pair.
        split: Split of the data.
        t: Position between A (0) and B (1).
        measured: The numbers there, by name.
    """
    return {SEED: seed, SPLIT: split, POSITION: t, **measured}


def path_table(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return the table of ``path.parquet``.

    Args:
        rows: What `path_row` returns, for all pairs.
    """
    import pandas as pd

    return pd.DataFrame(list(rows), columns=[*PATH, *dict.fromkeys(name for row in rows for name in measured_in(row))])


def measured_in(row: "Mapping[str, Any] | pd.DataFrame") -> list[str]:
    """Return the names in ``path.parquet``, or in a row of it, of what was measured.

    Args:
        row: The table, or a row.
    """
    return [str(name) for name in row if name not in PATH]


def read_analysis_table(path: Path, columns: Sequence[str] = tuple(COLUMNS)) -> "pd.DataFrame":
    """Read a table of an analysis.

    Args:
        path: The file.
        columns: Columns that it must have: by default those of ``analysis.parquet``; else ``DIFFERENCES``,
            ``SIMILARITY`` or ``PATH``.

    Raises:
        ValueError: the file is missing or damaged, or does not have all of the columns.
    """
    table = read_parquet(path)
    if WEIGHTS in columns:
        table = with_weights(table)
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{path} has no column {missing[0]!r}; {REMEDY}")
    return table


def named_differences(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return differences with columns named for people: A, B, B − A, each with ``…/stderr``.

    Args:
        table: Rows of ``differences.parquet``.
    """
    names = {"a": "A", "stderr_a": "A/stderr", "b": "B", "stderr_b": "B/stderr", "difference": "B − A"}
    return table[[*QUANTITY, "a", "b", "difference", STDERR, "stderr_a", "stderr_b", "pairs"]].rename(
        columns={**names, STDERR: "B − A/stderr"}
    )


def over_pairs(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return mean and standard deviation of each number of ``similarity.parquet`` over pairs, and how many there are.

    Args:
        table: Rows of ``similarity.parquet``.
    """
    found = table.groupby(list(QUANTITY), sort=False)[VALUE].agg(["mean", "std", "count"]).reset_index()
    return found.rename(columns={"mean": VALUE, "std": f"{VALUE}/{STDERR}", "count": "pairs"})
