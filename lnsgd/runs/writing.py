"""Atomic writing: files appear whole or not at all."""

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
    """A file cannot be written: the disk is full, or the folder was removed or is read-only."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it is renamed to ``path`` at the end, and removed if writing fails.

    The content is on the disk, and not only in the memory of the system, before the file has its name. After a power
    failure either the old or the new content is there.

    Args:
        path: The file; its folder is created. The former content stays until writing has ended.

    Raises:
        NotWrittenError: The system cannot write the file; in one line.
    """
    part = path.with_name(f".{path.name}{_part_suffix(os.getpid())}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _sync_to_disk(part)
        part.replace(path)
        with suppress(OSError):  # not all file systems can sync folders
            _sync_to_disk(path.parent)
    except Exception as error:
        if (why := _explain_failure(error, path, part)) is None:
            raise
        raise why from error
    finally:
        with suppress(OSError):  # an error of writing says more
            part.unlink(missing_ok=True)


def remove_parts(folder: Path, alone: bool = False) -> None:
    """Remove unfinished files of killed processes from a folder and two levels below it.

    Args:
        folder: The folder, which need not exist.
        alone: Whether only this process writes there. If not, files that another process of this or another machine
            may still be writing are kept.
    """
    for level in ("", "*/", "*/*/"):
        for part in folder.glob(f"{level}.*{_PART}"):
            if not part.name.endswith(_part_suffix(os.getpid())) and (alone or _is_abandoned(part)):
                part.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise OSError in one line if a folder cannot be created or written to.

    Args:
        folder: The folder, which need not exist.
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


# The end of the name of a file that is being written, or was when its process was killed.
_PART = ".part"


def _part_suffix(process: int) -> str:
    """Return the end of the names of files that a process of this machine is writing."""
    return f".{platform.node()}-{process}{_PART}"


def _is_abandoned(part: Path) -> bool:
    """Return whether the process that was writing a file ran on this machine and has ended."""
    process = part.name.removesuffix(_PART).rpartition("-")[2]
    if not process.isdecimal() or not part.name.endswith(_part_suffix(int(process))):
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # a process of another user
        return False
    return _is_zombie(int(process))


def _is_zombie(process: int) -> bool:
    """Return whether a process has ended but its parent has not asked for its exit code, perhaps never."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # a system without /proc
        return False


def _sync_to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _system_error(error: BaseException | None, paths: Sequence[Path]) -> int | None:
    """Return the number of the system error that caused an exception, unless it concerns another file."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno if error.filename in (None, *map(str, paths)) else None
        # Libraries that are not written in Python report system errors as text.
        if found := re.search(r"\b(?:os error|errno) (\d+)", str(error), re.IGNORECASE):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


def _explain_failure(error: Exception, path: Path, part: Path) -> NotWrittenError | None:
    """Explain in one line why writing failed; ``None`` if the cause is not a system error."""
    number = None if isinstance(error, NotWrittenError) else _system_error(error, (part, path, path.parent))
    if number is None:
        return None
    where = next((folder for folder in path.absolute().parents if folder.exists()), Path.cwd().anchor)
    written = part.stat().st_size if part.exists() else 0
    why = f"{os.strerror(number)} ({shutil.disk_usage(where).free / 1e6:,.1f} MB free, {written / 1e6:,.1f} MB written)"
    remedy = "check that the folder exists and can be written to"
    if number in _FULL:
        remedy = f"make room in {path.parent}"
    elif number in _FORBIDDEN:
        remedy = f"make {path.parent} writable"
    return NotWrittenError(f"cannot write {path}: {why}; {remedy} and start again. The former content is intact")


class Throttle:
    """A limit on how often a file is rewritten, so that writing takes a small share of the time."""

    # The largest share of the time that writing may take.
    SHARE = 0.02

    def __init__(self) -> None:
        self._written_at, self._cost = time.monotonic(), 0.0

    def due(self) -> bool:
        """Return whether the file was last written long enough ago, at least a second."""
        return time.monotonic() - self._written_at > max(1.0, self._cost / self.SHARE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure the time that writing takes."""
        start = time.monotonic()
        yield
        self._written_at = time.monotonic()
        self._cost = self._written_at - start
