"""Files before they are opened: ordinary ones, of a size that can be held in memory."""

import stat
from pathlib import Path


class UnreadableError(ValueError):
    """Why a file is refused, in a few words; which file it is the caller says."""


def size_of(path: Path, most: int | None = None) -> int:
    """Size of a file in bytes, asked before anything of it is read.

    Args:
        path: The file, or a link to one.
        most: Bytes that are allowed.

    Raises:
        UnreadableError: it is a folder, a pipe or a device, which might never end; or it is too large.
        OSError: it is not there, or may not be asked.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("it is no ordinary file")
    if most is not None and status.st_size > most:
        raise UnreadableError(f"it has {status.st_size:,} bytes, at most {most:,} are expected")
    return status.st_size
