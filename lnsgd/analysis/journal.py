"""What was measured before, so that it need not be measured again."""

import errno
import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lnsgd.callbacks.measurements import Measurement

# What a file system without locks answers.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Journal:
    """Measurements by key, a line of JSON each, written as soon as the numbers are there.

    A process that is killed leaves at most one line that is not whole; that is dropped.

    Args:
        path: The file, in a folder that exists; ``None`` to keep nothing.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, list[Measurement]] = {}
        self._size = 0  # of the lines that are whole
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line)
                self._found[entry["key"]] = [Measurement(*row) for row in entry["rows"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number}, is damaged; remove the file, or give another folder"
                ) from error
            self._size += len(line)

    def get(self, key: str) -> list[Measurement] | None:
        """What was measured under a key; ``None`` where nothing was."""
        return self._found.get(key)

    def put(self, key: str, rows: Sequence[Measurement]) -> None:
        """Keeps what was measured."""
        self._found[key] = list(rows)
        if self._path is None:
            return
        line = json.dumps({"key": key, "rows": [list(row) for row in rows]}).encode() + b"\n"
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(line)
        self._size += len(line)


@contextmanager
def journal_in(folder: Path | None) -> Iterator[Journal]:
    """The journal of a folder, which is made, for this process alone.

    Args:
        folder: Of an analysis; ``None`` to keep nothing.

    Raises:
        ValueError: another process writes to the folder now, or the journal is damaged.
    """
    if folder is None:
        yield Journal(None)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise ValueError(
                    f"{folder}: another analysis writes there now; wait for it, or give another folder"
                ) from error
        yield Journal(folder / "measured.jsonl")
