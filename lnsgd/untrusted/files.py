"""Check files before they are opened: they must be ordinary files of a limited size."""

import stat
from pathlib import Path


class UnreadableError(ValueError):
    """The reason why a file is refused, in a few words; the caller names the file."""


def size_of(path: Path, largest: int | None = None) -> int:
    """Return the size of a file in bytes, before it is read.

    Args:
        path: The file, or a link to one.
        largest: The largest number of bytes that is allowed.

    Raises:
        UnreadableError: It is too large, or a folder, a pipe or a device, which might never end.
        OSError: It does not exist or cannot be accessed.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("it is not an ordinary file")
    if largest is not None and status.st_size > largest:
        raise UnreadableError(f"it has {status.st_size:,} bytes, and at most {largest:,} are allowed")
    return status.st_size
