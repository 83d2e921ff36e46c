"""Reads files for a report; what cannot be read is one line that names the file."""

import base64
import json
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from lnsgd.report.content import Picture

T = TypeVar("T")

_REMEDY = "make it again, or leave this folder out"

_PNG = b"\x89PNG\r\n\x1a\n"


def read_text(path: Path) -> str:
    """A text file in UTF-8.

    Raises:
        ValueError: it is missing or no text.
    """
    return _read(path, lambda: path.read_text(encoding="utf-8"))


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        ValueError: it is missing or damaged.
    """
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ValueError: it is missing, damaged, or holds something else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__} where an object is expected; {_REMEDY}")
    return found


def read_parquet(path: Path, columns: Collection[str] = ()) -> pd.DataFrame:
    """A Parquet file.

    Args:
        path: The file.
        columns: What it must have.

    Raises:
        ValueError: it is missing or damaged, or has not all of the columns.
    """
    return with_columns(path, _read(path, lambda: pd.read_parquet(path)), columns)


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
    return with_columns(path, _read(path, lambda: pd.read_csv(path, **options)), columns)


def with_columns(path: Path, table: pd.DataFrame, columns: Collection[str]) -> pd.DataFrame:
    """The table of a file, if it has all of the columns.

    Raises:
        ValueError: it has not.
    """
    if missing := [name for name in columns if name not in table.columns]:
        raise ValueError(f"{path} has no column {missing[0]!r}; {_REMEDY}")
    return table


def read_picture(path: Path, alt: str) -> Picture:
    """A PNG file, to be embedded.

    Raises:
        ValueError: it is missing or no PNG.
    """
    data = _read(path, path.read_bytes)
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 24:
        raise ValueError(f"{path} is no PNG; {_REMEDY}")
    width, height = struct.unpack(">II", data[16:24])
    return Picture(path.name, alt, "data:image/png;base64," + base64.b64encode(data).decode(), width, height)


def _read(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {_REMEDY}") from None
    except (OSError, ValueError, KeyError) as error:  # those of pandas, pyarrow, json and decoding are ValueErrors
        cause = " ".join(str(error).split())[:160]
        raise ValueError(f"{path} cannot be read ({cause}); {_REMEDY}") from error
