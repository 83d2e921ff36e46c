"""How files are written: whole or not at all."""

import errno
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


class NotWrittenError(OSError):
    """A file cannot be written, in the middle of the work: the disk is full, or the folder gone or read-only."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; renamed to it at the end, removed if the writer fails.

    The file is on the disk, and not only in the memory of the system, before it has its name: a machine that loses
    power leaves the old one or the new one.

    Args:
        path: The file; its folder is made if it is not there. What it held before stays until the writer has ended.

    Raises:
        NotWrittenError: the system does not let it be written; in one line.
    """
    part = path.with_name(f".{path.name}{_writer(os.getpid())}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _to_disk(part)
        part.replace(path)
        with suppress(OSError):  # not all file systems do this for folders
            _to_disk(path.parent)
    except Exception as error:
        if (why := _why_not_written(error, path, part)) is None:
            raise
        raise why from error
    finally:
        with suppress(OSError):  # that of the writer says more
            part.unlink(missing_ok=True)


def remove_parts(folder: Path, alone: bool = False) -> None:
    """Removes what processes that were killed while they wrote have left in a folder and two levels below it.

    Args:
        folder: The folder, which need not be there.
        alone: Whether only this process writes there. Else what another process of this machine or of another one may
            still be writing is left alone.
    """
    for level in ("", "*/", "*/*/"):
        for part in folder.glob(f"{level}.*{_PART}"):
            if not part.name.endswith(_writer(os.getpid())) and (alone or _is_gone(part)):
                part.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raises OSError with one clear line where a folder cannot be made or written to.

    Args:
        folder: The folder, which need not be there.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write to {folder}: {existing} is not a folder you may write to ({error.strerror}); "
            "give another folder"
        ) from error


# What the name of a file ends with that is being written, or was when its process was killed.
_PART = ".part"


def _writer(process: int) -> str:
    """The end of the names of what a process of this machine writes."""
    return f".{platform.node()}-{process}{_PART}"


def _is_gone(part: Path) -> bool:
    """Whether a process of this machine wrote a file, and there is none of that number."""
    process = part.name.removesuffix(_PART).rpartition("-")[2]
    if not process.isdecimal() or not part.name.endswith(_writer(int(process))):
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return _has_ended(int(process))


def _has_ended(process: int) -> bool:
    """Whether a process is only listed until somebody asks for its end, which in a container may be never."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # a system without this folder
        return False


def _to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _system_error(error: BaseException | None, paths: Sequence[Path]) -> int | None:
    """Number of the system's error that an error is, says or follows from, unless it is of another file."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno if error.filename in (None, *map(str, paths)) else None
        # Libraries that are not written in Python report errors of the system as text.
        if told := re.search(r"\b(?:os error|errno) (\d+)", str(error), re.IGNORECASE):
            return int(told[1])
        error = error.__cause__ or error.__context__
    return None


def _why_not_written(error: Exception, path: Path, part: Path) -> NotWrittenError | None:
    """One line on why a writer failed; ``None`` where the system had no part in it."""
    number = None if isinstance(error, NotWrittenError) else _system_error(error, (part, path, path.parent))
    if number is None:
        return None
    where = next((folder for folder in path.absolute().parents if folder.exists()), Path.cwd().anchor)
    written = part.stat().st_size if part.exists() else 0
    why = f"{os.strerror(number)} ({shutil.disk_usage(where).free / 1e6:,.1f} MB free, {written / 1e6:,.1f} MB written)"
    remedy = "see that the folder is there and can be written to"
    if number in _FULL:
        remedy = f"make room in {path.parent}"
    elif number in _FORBIDDEN:
        remedy = f"make {path.parent} writable"
    return NotWrittenError(f"cannot write {path}: {why}; {remedy} and start again. What was there before is whole")


class Throttle:
    """Says when a file that is replaced as a whole may be written again, so that writing stays cheap."""

    # Writing may take at most this share of the time.
    SHARE = 0.02

    def __init__(self) -> None:
        self._written_at, self._cost = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether the last time is long enough ago, at least a second."""
        return time.monotonic() - self._written_at > max(1.0, self._cost / self.SHARE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Times one writing."""
        start = time.monotonic()
        yield
        self._written_at = time.monotonic()
        self._cost = self._written_at - start
