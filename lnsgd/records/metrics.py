"""``metrics.csv``: everything that a run logged, a row per step."""

import csv
import io
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lnsgd.records.measures import MOVE_AWAY
from lnsgd.runs.writing import Throttle, whole_file
from lnsgd.untrusted.files import UnreadableError, size_of
from lnsgd.untrusted.tables import REMEDY, naming

if TYPE_CHECKING:
    import pandas as pd

# The first two columns; the others are the names of what is logged, in alphabetical order.
STEP, EPOCH = "step", "epoch"

# Bytes of the file that are in memory at once while it is copied, and the most rows that wait in memory for it.
_CHUNK, _MOST_ROWS = 1 << 20, 1 << 14

# What a reader takes into memory.
_MOST_BYTES = 256 << 20


class MetricsTable:
    """Writer of ``metrics.csv`` for a run that is being trained.

    Numbers of one step share a row. When a run goes back to an earlier step (it was resumed), rows after that step are
    dropped and written anew.

    Only the rows that came since the file was last written, and its last row, which may get more numbers, are in
    memory. The next file is a copy of the other bytes of this one, followed by them, so the memory of a run does not
    grow with the number of steps that it logs.

    Args:
        path: The file.
        resume: Keep the rows of a file that is there.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        # Of the file: its columns, and how many of its bytes stay as they are. By step: the rows that follow them.
        self._columns: list[str] = []
        self._kept = 0
        self._rows: dict[int, dict[str, Any]] = {}
        self._throttle, self._dirty = Throttle(), False
        if resume and path.exists():
            self._go_back(sys.maxsize)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add numbers to the row of a step."""
        if len(self._rows) > _MOST_ROWS and step not in self._rows:
            self.write()
        if self._rows and step < next(iter(self._rows)) and self._kept:
            self._go_back(step)
        elif self._rows and step < next(reversed(self._rows)):
            self._rows = {s: row for s, row in self._rows.items() if s <= step}
        row = self._rows.setdefault(step, {})
        # A test after training logs at the last step too, when the epoch counter has moved on.
        row.update({**metrics, EPOCH: row[EPOCH]} if EPOCH in row else metrics)
        self._dirty = True

    def write_if_due(self) -> None:
        """Replace the file if the last time is long enough ago that writing costs little."""
        if self._throttle.due():
            self.write()

    def write(self) -> None:
        """Replace the file if there is anything new."""
        if not self._dirty:
            return
        names = {name for row in self._rows.values() for name in row}.union(self._columns)
        columns = [STEP, EPOCH, *sorted(names - {STEP, EPOCH})]
        rows = [{STEP: step, **row} for step, row in self._rows.items()]
        with self._throttle.writing(), whole_file(self.path) as part, part.open("wb") as file:
            if columns == self._columns:
                self._copy_kept(file)
            else:
                file.write(_text(columns, [dict(zip(columns, columns))]))
                file.writelines(_text(columns, [row]) for row in self._kept_rows())
            file.write(_text(columns, rows[:-1]))
            kept = file.tell()
            file.write(_text(columns, rows[-1:]))
        self._columns, self._kept, self._dirty = columns, kept, False
        self._rows = dict([self._rows.popitem()])

    def _go_back(self, step: int) -> None:
        """Drop the rows after a step; the last one before them may then change."""
        with naming(self.path, MOVE_AWAY), self.path.open("rb") as file:
            records = _records(file)
            self._columns, self._kept = next(records, ([], 0))
            if self._columns[:1] != [STEP]:
                raise UnreadableError("its first column is not step")
            self._rows, end = {}, self._kept
            for row, next_row in records:
                if len(row) != len(self._columns):
                    raise UnreadableError("a row is cut off")
                if int(row[0]) > step:
                    break
                self._kept, end = end, next_row
                self._rows = {int(row[0]): _filled(self._columns[1:], row[1:])}

    def _copy_kept(self, target: IO[bytes]) -> None:
        with self.path.open("rb") as file:
            while target.tell() < self._kept:
                if not (chunk := file.read(min(_CHUNK, self._kept - target.tell()))):
                    raise ValueError(f"{self.path} was cut off while the run wrote to it; {MOVE_AWAY}")
                target.write(chunk)

    def _kept_rows(self) -> Iterator[dict[str, str]]:
        if not self._kept:
            return
        with naming(self.path, MOVE_AWAY), self.path.open("rb") as file:
            records = _records(file)
            next(records)
            for row, end in records:
                if end > self._kept:
                    return
                yield _filled(self._columns, row)


def read_metrics(path: Path) -> "pd.DataFrame":
    """Read ``metrics.csv``.

    Args:
        path: The file.

    Raises:
        ValueError: the file is missing or damaged, or its steps are not numbers.
    """
    import pandas as pd

    with naming(path):
        size_of(path, _MOST_BYTES)
        table: pd.DataFrame = pd.read_csv(path)
    if STEP not in table:
        raise ValueError(f"{path} has no column {STEP!r}; {REMEDY}")
    if not pd.api.types.is_numeric_dtype(table[STEP]):
        raise ValueError(f"{path} has steps that are not numbers; {REMEDY}")
    return table


def read_logged(path: Path, name: str) -> Iterator[tuple[int, float]]:
    """Read one column of ``metrics.csv``: pairs of a step and a number, where it was logged.

    Args:
        path: The file.
        name: Name of the column.

    Raises:
        ValueError: the file is missing or damaged.
    """
    with naming(path), path.open(newline="") as file:
        for row in csv.DictReader(file):
            if text := row.get(name):
                yield int(row[STEP]), float(text)


def last_logged(path: Path, names: Collection[str]) -> dict[str, float]:
    """Return the last value of some columns of ``metrics.csv``, of those that were logged.

    Args:
        path: The file.
        names: Names of the columns.

    Raises:
        ValueError: the file is missing or damaged.
    """
    found: dict[str, str] = {}
    with naming(path), path.open(newline="") as file:
        reader = csv.reader(file)
        places = [(name, place) for place, name in enumerate(next(reader, [])) if name in names]
        for row in reader:
            found.update({name: row[place] for name, place in places if row[place]})
        return {name: float(text) for name, text in found.items()}


def _records(file: IO[bytes]) -> Iterator[tuple[list[str], int]]:
    """Yield the records of a CSV file, each with the position after it.

    Raises:
        UnreadableError: the last line does not end.
    """
    position = 0

    def lines() -> Iterator[str]:
        nonlocal position
        for line in file:
            if not line.endswith(b"\n"):
                raise UnreadableError("a row is cut off")
            position += len(line)
            yield line.decode()

    for record in csv.reader(lines()):
        yield record, position


def _filled(columns: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """Return the fields of a row that are not empty, by column."""
    return {name: value for name, value in zip(columns, row) if value != ""}


def _text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()
