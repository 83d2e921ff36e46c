"""``metrics.csv``: a row per step, whole at any moment, continued on resume."""

import csv
import io
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming
from lnsgd.writing import Throttle, whole_file

# What can be done about a table of a run that is to go on. It is never replaced unasked: it may be all there is.
MOVE_AWAY = "move it away, and the run goes on without what it had; or start over in another folder"

# Bytes of the file that are in memory at once while it is copied, and the most rows that wait in memory for it.
_CHUNK, _MOST_ROWS = 1 << 20, 1 << 14


class CSVLogger(Logger):
    """Writes ``metrics.csv`` into the folder of a run.

    Numbers logged at one step share a row. The file is replaced as a whole: with every checkpoint (before it, where a
    ``RunRecord`` asks for that: what a checkpoint follows from must not be lost), at the end,
    and in between as often as costs little. When a run goes back to an earlier step (it was resumed), rows after that
    step are dropped and written anew.

    In memory are only the rows that came since the file was last written, and its last row, which may get more numbers.
    The next file is a copy of the other bytes of this one, followed by them. So the memory of a run does not grow with
    the number of steps that it logs.

    Args:
        save_dir: Folder of the run.
        resume: Go on with the rows of a ``metrics.csv`` that is there.
    """

    def __init__(self, save_dir: str, resume: bool = False) -> None:
        super().__init__()
        self._run = RunFolder(Path(save_dir))
        # Of the file: its columns, and how many of its bytes stay as they are. By step: the rows that follow them.
        self._columns: list[str] = []
        self._kept = 0
        self._rows: dict[int, dict[str, Any]] = {}
        self._throttle, self._dirty = Throttle(), False
        if resume and self._run.metrics.exists():
            self._go_back(sys.maxsize)

    def _go_back(self, step: int) -> None:
        """Drops the rows after a step; the last one before them may then change."""
        with naming(self._run.metrics, MOVE_AWAY), self._run.metrics.open("rb") as file:
            records = _records(file)
            self._columns, self._kept = next(records, ([], 0))
            if self._columns[:1] != ["step"]:
                raise UnreadableError("its first column is not step")
            self._rows, end = {}, self._kept
            for row, next_row in records:
                if len(row) != len(self._columns):
                    raise UnreadableError("a row is cut off")
                if int(row[0]) > step:
                    break
                self._kept, end = end, next_row
                self._rows = {int(row[0]): _filled(self._columns[1:], row[1:])}

    @property
    def name(self) -> str:
        """Empty: the folder itself is the run."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the folder itself is the run."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the run."""
        return str(self._run.path)

    @property
    def log_dir(self) -> str:
        """Folder of the run."""
        return str(self._run.path)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds numbers to the row of a step."""
        if step is None:
            raise ValueError("CSVLogger.log_metrics needs a step")
        if len(self._rows) > _MOST_ROWS and step not in self._rows:
            self.flush()
        if self._rows and step < next(iter(self._rows)) and self._kept:
            self._go_back(step)
        elif self._rows and step < next(reversed(self._rows)):
            self._rows = {s: row for s, row in self._rows.items() if s <= step}
        row = self._rows.setdefault(step, {})
        # A test after training logs at the last step too, when the epoch counter has moved on.
        row.update({**metrics, "epoch": row["epoch"]} if "epoch" in row else metrics)
        self._dirty = True

    @rank_zero_only
    def save(self) -> None:
        """Writes the file if the last time is long enough ago."""
        if self._throttle.due():
            self.flush()

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """Writes the file."""
        self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the file."""
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Writes the file where there is something new."""
        if not self._dirty:
            return
        names = {name for row in self._rows.values() for name in row}.union(self._columns)
        columns = ["step", "epoch", *sorted(names - {"step", "epoch"})]
        rows = [{"step": step, **row} for step, row in self._rows.items()]
        with self._throttle.writing(), whole_file(self._run.metrics) as part, part.open("wb") as file:
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

    def _copy_kept(self, target: IO[bytes]) -> None:
        with self._run.metrics.open("rb") as file:
            while target.tell() < self._kept:
                if not (chunk := file.read(min(_CHUNK, self._kept - target.tell()))):
                    raise ValueError(f"{self._run.metrics} was cut off while the run wrote to it; {MOVE_AWAY}")
                target.write(chunk)

    def _kept_rows(self) -> Iterator[dict[str, str]]:
        if not self._kept:
            return
        with naming(self._run.metrics, MOVE_AWAY), self._run.metrics.open("rb") as file:
            records = _records(file)
            next(records)
            for row, end in records:
                if end > self._kept:
                    return
                yield _filled(self._columns, row)


def _records(file: IO[bytes]) -> Iterator[tuple[list[str], int]]:
    """Records of a CSV file, each with the position after it.

    Raises:
        UnreadableError: the last line has no end.
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
    """The fields of a row that are not empty, by column."""
    return {name: value for name, value in zip(columns, row) if value != ""}


def _text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()
