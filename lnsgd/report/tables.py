"""Convert data frames to tables of a page."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lnsgd.console.numbers import numbers, plus_minus
from lnsgd.report.content import Column, Entry, Table

# A page with this many rows of 20 columns has about 20 MB.
MOST_ROWS = 20_000

# Digits of the numbers by which rows are sorted.
_KEY_DIGITS = 12


def table_of(
    frame: pd.DataFrame,
    title: str,
    *,
    mark: str = "",
    keep: Sequence[str] = (),
    most: int = MOST_ROWS,
    stacked: bool = False,
) -> Table:
    """Return a data frame as a table.

    A column ``<name>/stderr`` becomes the ± of ``<name>``. Empty columns are left out. If there is more than one row,
    a column with the same value everywhere is stated once beside the table.

    Args:
        frame: The rows.
        title: Description of the rows.
        mark: A column of statuses, which is coloured.
        keep: Columns that are always shown.
        most: Number of rows on the page; further rows are left out.
        stacked: Whether a row is a paragraph on a phone, for tables of few columns.
    """
    left_out, frame = max(0, len(frame) - most), frame.head(most)
    errors = {name for name in frame.columns if name.endswith("/stderr") and name.removesuffix("/stderr") in frame}
    columns, cells, same = [], [], []
    for name in frame.columns:
        if name in errors:
            continue
        values = [_plain(value) for value in frame[name]]
        numeric = all(isinstance(value, (int, float)) for value in values if value is not None)
        errs = [_plain(value) for value in frame[f"{name}/stderr"]] if f"{name}/stderr" in errors else None
        filled = _numbers(values, errs) if numeric else _texts(values, name == mark)
        said = {cell.text for cell in filled}
        if name not in keep and said <= {""}:
            continue
        if name not in keep and len(filled) > 1 and len(said) == 1 and len(set(map(str, values))) == 1:
            same.append((name, filled[0].text))
            continue
        columns.append(Column(name, numeric))
        cells.append(filled)
    return Table(title, columns, list(zip(*cells)), same, left_out, stacked)


def _plain(value: Any) -> Any:
    """Return a Python number, a text, or ``None``."""
    if isinstance(value, (list, tuple, dict)):
        return str(value)
    if value is None or pd.isna(value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    return str(value) if isinstance(value, bool) else value


def _texts(values: Sequence[Any], marked: bool) -> list[Entry]:
    texts = ["" if value is None else str(value) for value in values]
    return [Entry(text, mark=text if marked else "") for text in texts]


def _numbers(values: Sequence[float | None], errors: Sequence[float | None] | None) -> list[Entry]:
    if errors is None:
        given = iter(numbers([value for value in values if value is not None]))
        texts = ["" if value is None else next(given) for value in values]
    else:
        texts = ["" if value is None else plus_minus(value, error) for value, error in zip(values, errors)]
    return [Entry(text, "" if v is None or _shows_exactly(text, v) else _key(v)) for text, v in zip(texts, values)]


def _shows_exactly(text: str, value: float) -> bool:
    """Whether the text is the number itself, so that a script can sort by it."""
    try:
        return float(text) == value
    except ValueError:
        return False


def _key(value: float) -> str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.{_KEY_DIGITS}g}"
