"""Tables of ``lnsgd analyze --compare``."""

from pathlib import Path

import pandas as pd

from lnsgd.report.content import Table
from lnsgd.report.reading import read_parquet
from lnsgd.report.tables import table_of

_DIFFERENCES = ("measure", "split", "layer", "a", "b", "difference", "stderr", "stderr_a", "stderr_b", "pairs")
_SIMILARITY = ("seed", "split", "measure", "layer", "value")
_LINE = ("seed", "split", "t")


def is_comparison(folder: Path) -> bool:
    """Whether ``lnsgd analyze --compare`` has written here."""
    return (folder / "differences.parquet").is_file()


def comparison_tables(folder: Path) -> list[Table]:
    """Differences, how alike the networks are, and the line between them; of pairs means over them.

    Raises:
        ValueError: a file is missing or damaged.
    """
    made = (
        _differences(read_parquet(folder / "differences.parquet", _DIFFERENCES)),
        _similarity(read_parquet(folder / "similarity.parquet", _SIMILARITY)),
        _line(read_parquet(folder / "path.parquet", _LINE)),
    )
    return [table for table in made if table.rows]


def _differences(rows: pd.DataFrame) -> Table:
    names = {"a": "A", "stderr_a": "A/stderr", "b": "B", "stderr_b": "B/stderr", "difference": "B − A"}
    ordered = rows[list(_DIFFERENCES)].rename(columns={**names, "stderr": "B − A/stderr"})
    return table_of(ordered, "Differences ± standard error", keep=["measure", "A", "B", "B − A"])


def _similarity(rows: pd.DataFrame) -> Table:
    found = rows.groupby(["measure", "split", "layer"], sort=False)["value"]
    of_all = found.agg(value="mean", error="std", pairs="count").reset_index()
    of_all = of_all.rename(columns={"error": "value/stderr"})
    several = rows["seed"].nunique() > 1
    title = "How alike: mean ± standard deviation over pairs" if several else "How alike"
    return table_of(of_all, title, keep=["measure", "value"])


def _line(rows: pd.DataFrame) -> Table:
    measured = [str(name) for name in rows if name not in _LINE]
    found = rows.sort_values("split", kind="stable").groupby(["split", "t"], sort=False)[measured]
    means, spreads = found.mean(), found.std().rename(columns={name: f"{name}/stderr" for name in measured})
    several = rows["seed"].nunique() > 1
    title = "On the line from A (t = 0) to B (t = 1)" + (": mean ± standard deviation over pairs" if several else "")
    return table_of(means.join(spreads).reset_index(), title, keep=["t", *measured])
