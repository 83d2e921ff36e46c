"""Tables for a terminal: names stay whole, what is equal in all rows moves into the caption, columns fit the width."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

_GAP = 2


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        head: Its heading, of one or more lines.
        cells: Its cells, each of one line.
        is_text: Whether it holds names, which are aligned on the left, instead of numbers.
    """

    head: str
    cells: Sequence[str]
    is_text: bool = False

    @property
    def width(self) -> int:
        """The number of characters of the widest line."""
        return max(map(len, (*self.head.split("\n"), *self.cells)))


def split_off_equal(columns: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """Separate the columns that tell rows apart from those that have one value in all of several rows.

    Args:
        columns: Columns with equally many cells.

    Returns:
        The columns to be shown, and those for the caption. A table of one row keeps all of its columns.
    """
    equal = [column for column in columns if len(column.cells) > 1 and len(set(column.cells)) == 1]
    return [column for column in columns if column not in equal], equal


def common_prefix(names: Collection[str]) -> str:
    """Return the dotted beginning that several names share; each name keeps at least its last part.

    Example:
        >>> common_prefix(["net.layers.0.weight", "net.layers.1.weight"]), common_prefix(["net.layers.0"])
        ('net.layers.', '')
    """
    if len(set(names)) < 2:
        return ""
    parts = [name.split(".") for name in names]
    shared = 0
    while all(len(own) > shared + 1 and own[shared] == parts[0][shared] for own in parts):
        shared += 1
    return "".join(f"{part}." for part in parts[0][:shared])


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each dotted name the shortest end that no other name has.

    Example:
        >>> short_names(["model.label_noise.p", "model.net.width", "data.width"])
        {'model.label_noise.p': 'p', 'model.net.width': 'net.width', 'data.width': 'data.width'}
    """

    def end(name: str, length: int) -> str:
        return ".".join(name.split(".")[-length:])

    short = {}
    for name in names:
        lengths = range(1, name.count(".") + 2)
        unique = (n for n in lengths if sum(end(other, n) == end(name, n) for other in names) == 1)
        short[name] = end(name, next(unique, lengths[-1]))
    return short


def tables(left: Sequence[Column], right: Sequence[Column], width: int) -> Iterator[list[str]]:
    """Lay out columns as the lines of one or more tables, each with as many columns as fit into a width.

    Args:
        left: Columns with which every table begins.
        right: The other columns, in their order.
        width: Columns of the terminal. A table whose first column is already too wide exceeds it.
    """
    current = list(left)
    for column in right:
        if len(current) > len(left) and _width([*current, column]) > width:
            yield _lines(current)
            current = list(left)
        current.append(column)
    yield _lines(current)


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def _lines(columns: Sequence[Column]) -> list[str]:
    heads = [column.head.split("\n") for column in columns]
    highest = max(map(len, heads))
    padded = [[""] * (highest - len(head)) + head for head in heads]
    texts = zip(*([*head, *column.cells] for head, column in zip(padded, columns)))
    return [(" " * _GAP).join(map(_aligned, line, columns)).rstrip() for line in texts]


def _aligned(text: str, column: Column) -> str:
    return text.ljust(column.width) if column.is_text else text.rjust(column.width)
