"""Locks on files, which the system frees when their process ends."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

# The errors of a file system without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


# Whether a lock was obtained: not if another process has it, and never on a file system without locks.
Obtained = Literal["yes", "no", "unsupported"]


@contextmanager
def locked(path: Path, shared: bool = False, wait: bool = False) -> Iterator[bool]:
    """Lock a file until the end of the context; the value is whether the lock was obtained.

    On a file system without locks, as on some clusters, every process obtains the lock.

    Args:
        path: The file; it and its folder are created if they do not exist.
        shared: Let others hold the lock too, if they share it.
        wait: Wait until the lock is free. By default a process that holds it is not waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield obtain(file, shared, wait) != "no"


def is_locked(path: Path, shared: bool = False) -> bool:
    """Whether a process holds the lock on a file.

    Args:
        path: The file, which need not exist.
        shared: Count processes that share the lock too; this needs permission to write the file.
    """
    if not path.exists():
        return False
    with path.open("a" if shared else "r") as file:
        return obtain(file, shared=not shared, wait=False) == "no"


def obtain(file: IO[str], shared: bool = False, wait: bool = False) -> Obtained:
    """Lock an open file until it is closed.

    Args:
        file: The file.
        shared: See `locked`.
        wait: See `locked`.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return "no"
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return "unsupported"
    return "yes"
