"""Claims: a folder is written by one command at a time, and two commands never choose the same new folder."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple

from lnsgd.runs.locks import is_locked, obtain

# The file in a folder that is locked by whoever writes there. It is removed when the folder is released.
LOCK = ".lock"

# A process that was killed may leave others behind for a moment, which still hold the lock.
_SECONDS_TO_WAIT = 10.0

# The first of several processes chooses a new folder; the others look for its choice this long.
_SECONDS_TO_CHOOSE = 300.0

_SECONDS_BETWEEN_ATTEMPTS = 0.1

# What this process has claimed, by the absolute path of the folder, until it is released or the process ends.
_held: dict[Path, "Claim"] = {}

# The environment variable in which the first process tells those that it starts which new folder it has chosen.
CHOSEN = "LNSGD_CHOSEN_FOLDER"


class Claim:
    """The right of this process to write to a folder, until it is released or the process ends.

    Args:
        folder: The folder.
        file: Its lock file, open and locked; ``None`` if this process has claimed the folder before.
        made: The folders that were made for the claim, the innermost first.
    """

    def __init__(self, folder: Path, file: IO[str] | None, made: list[Path]) -> None:
        self.folder = folder
        self._file = file
        self._lock = (folder / LOCK).absolute()  # the process may change its working directory
        self._made = [path.absolute() for path in made]

    def release(self) -> None:
        """Let others write to the folder; a folder that was made for the claim is removed if it is still empty."""
        if self._file is None or self._file.closed:
            return
        _held.pop(self._lock.parent, None)
        with suppress(OSError):
            self._lock.unlink(missing_ok=True)
            for made in self._made:
                made.rmdir()
        self._file.close()


class _Holder(NamedTuple):
    """Who has claimed a folder, as it stands in the lock file: machine, process, and the launch that it belongs to."""

    machine: str
    process: str
    launch: str


def claim(folder: Path, seconds: float = _SECONDS_TO_WAIT) -> Claim:
    """Claim a folder, which is created if it does not exist; a process may claim a folder several times.

    Args:
        folder: The folder.
        seconds: How long to wait for a process that has claimed it.

    Raises:
        ValueError: Another process writes there.
        OSError: The folder cannot be created or written to.
    """
    until = time.monotonic() + seconds
    while True:
        found = _try_to_claim(folder)
        if isinstance(found, Claim):
            return found
        if folder.absolute() in _held:
            return Claim(folder, None, [])
        if time.monotonic() >= until:
            by = _read_holder(folder)
            who = f"process {by.process} on {by.machine}" if by else "another process"
            raise ValueError(f"{folder} is being written by {who}; wait for it to end, or give another folder")
        time.sleep(_SECONDS_BETWEEN_ATTEMPTS)


def claim_new(parent: Path, name: str) -> Claim:
    """Claim a new or an empty folder: ``name``, or the first of ``name-2``, ``name-3``, … that nobody has used.

    Args:
        parent: Where the folder is created.
        name: Its name, if that is free.

    Raises:
        OSError: The folder cannot be created.
    """
    for number in count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        if not _is_vacant(folder):
            continue
        found = _try_to_claim(folder, new=True)
        if isinstance(found, Claim):
            if _is_vacant(folder):  # looked at again, now that nobody else can write there
                return found
            found.release()
    raise AssertionError("unreachable")


def chosen_by_first(parent: Path, name: str) -> Path:
    """Return the folder that the first process of this run has claimed by `claim_new`, for its other processes.

    Args:
        parent: As for `claim_new`.
        name: As for `claim_new`.

    Raises:
        ValueError: The first process has not chosen a folder in a long time.
    """
    if chosen := os.environ.get(CHOSEN):
        return Path(chosen)
    launch, until = _launch(), time.monotonic() + _SECONDS_TO_CHOOSE
    while time.monotonic() < until:
        for lock in parent.glob(f"{name}*/{LOCK}"):
            by = _read_holder(lock.parent)
            if by is not None and by.launch == launch and is_locked(lock):
                return lock.parent
        time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
    raise ValueError(
        f"the first process of this run has chosen no folder in {parent} within {_SECONDS_TO_CHOOSE:g} s; give a "
        "folder with --run_dir"
    )


def announce(folder: Path) -> None:
    """Tell the processes that this one starts which folder was chosen; within `released_at_end`.

    Args:
        folder: The folder.
    """
    os.environ[CHOSEN] = str(folder)


@contextmanager
def released_at_end() -> Iterator[None]:
    """Release at the end of the context what was claimed and announced within it."""
    before, held = os.environ.get(CHOSEN), set(_held)
    try:
        yield
    finally:
        for folder in [folder for folder in reversed(_held) if folder not in held]:  # the outermost folder at last
            _held[folder].release()
        if before is None:
            os.environ.pop(CHOSEN, None)
        else:
            os.environ[CHOSEN] = before


def _try_to_claim(folder: Path, new: bool = False) -> Claim | None:
    """Claim a folder if nobody else has; on a file system without locks, a new one if this process has made it."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
        first = True
    except FileExistsError:
        first = False
    path = folder / LOCK
    try:
        file = path.open("a")
    except FileNotFoundError:  # the folder was released and removed meanwhile
        return None
    obtained = obtain(file)
    if obtained == "no" or not _is_file(file, path) or (obtained == "unsupported" and new and not first):
        file.close()
        return None
    file.truncate(0)
    file.write("\n".join(_Holder(platform.node(), str(os.getpid()), _launch())))
    file.flush()
    claimed = _held[folder.absolute()] = Claim(folder, file, made)
    return claimed


def _is_file(file: IO[str], path: Path) -> bool:
    """Whether an open file still has its name: a released claim removes its lock file, which others may have open."""
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _is_vacant(folder: Path) -> bool:
    """Whether a folder does not exist, or has nothing in it."""
    try:
        return all(path.name == LOCK for path in folder.iterdir())
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return not folder.exists()  # it cannot be made either, which is reported when that is tried


def _read_holder(folder: Path) -> _Holder | None:
    try:
        lines = (folder / LOCK).read_text().split("\n")
    except OSError:
        return None
    return _Holder(*lines) if len(lines) == len(_Holder._fields) else None


def _launch() -> str:
    """Name the start of several processes that this one is part of, in the same words in all of them."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
    return " ".join(os.environ.get(name, "-") for name in names)
