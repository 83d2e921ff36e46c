"""Read texts and pictures for a report; a file that cannot be read is one line that names it."""

import base64
import struct
from pathlib import Path

from lnsgd.report.content import Picture
from lnsgd.untrusted.files import size_of
from lnsgd.untrusted.tables import REMEDY, naming

# The largest files that are put into a page.
_MOST_TEXT, _MOST_PICTURE = 256 << 20, 32 << 20

_PNG = b"\x89PNG\r\n\x1a\n"


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        ValueError: the file is missing or is not text.
    """
    with naming(path):
        size_of(path, _MOST_TEXT)
        return path.read_text(encoding="utf-8")


def read_picture(path: Path, alt: str) -> Picture:
    """Read a PNG file that is to be embedded.

    Raises:
        ValueError: the file is missing or is not a PNG file.
    """
    with naming(path):
        size_of(path, _MOST_PICTURE)
        data = path.read_bytes()
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 24:
        raise ValueError(f"{path} is not a PNG file; {REMEDY}")
    width, height = struct.unpack(">II", data[16:24])
    return Picture(path.name, alt, "data:image/png;base64," + base64.b64encode(data).decode(), width, height)
