"""``measured.jsonl``: what an analysis has measured, so that it is not measured again when the analysis is resumed."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lnsgd.measuring.measurement import Measurement
from lnsgd.runs.locks import locked


class Journal:
    """Measurements by key, each a line of JSON that is written as soon as the numbers are known.

    A process that is killed leaves at most one incomplete line, which is dropped.

    Args:
        path: The file, in a folder that exists; ``None`` to keep nothing on disk.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, list[Measurement]] = {}
        self._size = 0  # bytes of the complete lines
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
        """Return what was measured under a key; ``None`` if nothing was."""
        return self._found.get(key)

    def once(self, key: str, measure: Callable[[], Sequence[Measurement]]) -> Sequence[Measurement]:
        """Return what was measured under a key; if nothing was, measure it now and keep it."""
        if (known := self.get(key)) is None:
            self.put(key, known := list(measure()))
        return known

    def put(self, key: str, rows: Sequence[Measurement]) -> None:
        """Keep what was measured under a key."""
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
    """Open the journal of a folder, which is made if it does not exist, for this process alone.

    Args:
        folder: Folder of an analysis; ``None`` to keep nothing on disk.

    Raises:
        ValueError: another process writes to the folder now, or the journal is damaged.
    """
    if folder is None:
        yield Journal(None)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock") as alone:
        if not alone:
            raise ValueError(f"{folder}: another analysis writes there now; wait for it, or give another folder")
        yield Journal(folder / "measured.jsonl")
