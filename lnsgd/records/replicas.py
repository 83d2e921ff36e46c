"""``replicas.csv``: the settings of each replica of a run, and how it ended."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import UnreadableError, size_of
from lnsgd.untrusted.tables import REMEDY, naming

if TYPE_CHECKING:
    import pandas as pd

# First the number of the replica, then its settings (the fields of `lnsgd.replicas.Replica`), then how it ended.
REPLICA, SEED = "replica", "seed"
DIVERGED_AT = "diverged_at"
ENDS = (DIVERGED_AT, "stopped_at", "stopped_by")

# Stands for a stopping rule where the run ended before one was satisfied.
LIMIT = "limit"

_MOST_BYTES = 256 << 20


class End(NamedTuple):
    """The end of a replica; every field is ``None`` while it runs.

    Attributes:
        diverged_at: The step at which it diverged.
        stopped_at: The step at which it was stopped.
        stopped_by: The stopping rule that it satisfied; ``limit`` where the run ended before it did.
    """

    diverged_at: int | None = None
    stopped_at: int | None = None
    stopped_by: str | None = None


def write_replicas(path: Path, replicas: Sequence[tuple[Mapping[str, Any], End]], known: Sequence[str] = ENDS) -> None:
    """Write ``replicas.csv``.

    Args:
        path: The file; written whole or not at all.
        replicas: Settings and end of each replica, at least one.
        known: Columns of the end that are written.
    """
    rows = [
        {REPLICA: number, **settings, **{name: getattr(end, name) for name in known}}
        for number, (settings, end) in enumerate(replicas)
    ]
    with whole_file(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_replicas(path: Path, as_text: bool = False) -> "pd.DataFrame":
    """Read settings and ends of the replicas of a run, a row each.

    Args:
        path: A ``replicas.csv``.
        as_text: Every field as it stands there, an empty one as the empty string.

    Raises:
        ValueError: the file is missing or damaged, or has replicas without a number.
    """
    import pandas as pd

    options: dict[str, Any] = {"dtype": str, "keep_default_na": False} if as_text else {}
    with naming(path):
        size_of(path, _MOST_BYTES)
        table: pd.DataFrame = pd.read_csv(path, **options)
    if REPLICA not in table:
        raise ValueError(f"{path} has no column {REPLICA!r}; {REMEDY}")
    if not table[REPLICA].astype(str).str.fullmatch(r"\d+").all():
        raise ValueError(f"{path} has replicas without a number; {REMEDY}")
    return table


def diverged_replicas(replicas: "pd.DataFrame") -> list[int]:
    """Return the numbers of the replicas that have diverged.

    Args:
        replicas: What `read_replicas` returns, as text or not; an empty table for an ordinary run.
    """
    return [int(row[REPLICA]) for row in replicas.to_dict("records") if str(row[DIVERGED_AT]) not in ("", "nan")]


def setting_names(replicas: "pd.DataFrame") -> list[str]:
    """Return the columns that are settings of a replica other than its seed.

    Args:
        replicas: What `read_replicas` returns.
    """
    return [str(name) for name in replicas if name not in (REPLICA, SEED, *ENDS)]


def read_ends(path: Path, number: int) -> list[End]:
    """Read how each replica ended.

    Args:
        path: A ``replicas.csv``.
        number: How many replicas there must be.

    Raises:
        ValueError: the file is missing or damaged, or has other replicas.
    """
    with naming(path), path.open(newline="") as file:
        rows = list(csv.DictReader(file))
        if [int(row[REPLICA]) for row in rows] != list(range(number)):
            raise UnreadableError(f"it does not have the replicas 0 to {number - 1}, one for each cell")
        return [
            End(_integer(row[DIVERGED_AT]), _integer(row.get("stopped_at")), row.get("stopped_by") or None)
            for row in rows
        ]


def _integer(text: str | None) -> int | None:
    return int(text) if text else None
