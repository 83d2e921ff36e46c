"""Reads files for a report; what cannot be read is one line that names the file."""

import base64
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from lnsgd.report.content import Picture
from lnsgd.untrusted.files import size_of
from lnsgd.untrusted.tables import REMEDY, naming
from lnsgd.untrusted.tables import read_parquet as read_table
from lnsgd.untrusted.texts import load_json

# What is put into a page whole.
_MOST_TEXT, _MOST_PICTURE = 256 << 20, 32 << 20

_PNG = b"\x89PNG\r\n\x1a\n"


def read_text(path: Path) -> str:
    """A text file in UTF-8.

    Raises:
        ValueError: it is missing or no text.
    """
    with naming(path):
        size_of(path, _MOST_TEXT)
        return path.read_text(encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        ValueError: it is missing or damaged.
    """
    with naming(path):
        return load_json(path)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ValueError: it is missing, damaged, or holds something else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__} where an object is expected; {REMEDY}")
    return found


def read_parquet(path: Path, columns: Collection[str] = ()) -> pd.DataFrame:
    """A Parquet file.

    Args:
        path: The file.
        columns: What it must have.

    Raises:
        ValueError: it is missing or damaged, or has not all of the columns.
    """
    return with_columns(path, read_table(path), columns)


def read_csv(path: Path, columns: Collection[str] = (), *, as_text: bool = False) -> pd.DataFrame:
    """A CSV file.

    Args:
        path: The file.
        columns: What it must have.
        as_text: Every field as it stands there, an empty one as the empty string.

    Raises:
        ValueError: it is missing or damaged, or has not all of the columns.
    """
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False} if as_text else {}
    with naming(path):
        size_of(path, _MOST_TEXT)
        table: pd.DataFrame = pd.read_csv(path, **options)
    return with_columns(path, table, columns)


def with_columns(path: Path, table: pd.DataFrame, columns: Collection[str]) -> pd.DataFrame:
    """The table of a file, if it has all of the columns.

    Raises:
        ValueError: it has not.
    """
    if missing := [name for name in columns if name not in table.columns]:
        raise ValueError(f"{path} has no column {missing[0]!r}; {REMEDY}")
    return table


def read_picture(path: Path, alt: str) -> Picture:
    """A PNG file, to be embedded.

    Raises:
        ValueError: it is missing or no PNG.
    """
    with naming(path):
        size_of(path, _MOST_PICTURE)
        data = path.read_bytes()
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 24:
        raise ValueError(f"{path} is no PNG; {REMEDY}")
    width, height = struct.unpack(">II", data[16:24])
    return Picture(path.name, alt, "data:image/png;base64," + base64.b64encode(data).decode(), width, height)
