"""Tables of an analysis on the terminal."""

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

import pandas as pd

from lnsgd.console.numbers import number, plus_minus
from lnsgd.console.tables import Column, common_prefix, split_off_equal, tables
from lnsgd.measuring.names import MEASURERS
from lnsgd.records.analyses import differences_of
from lnsgd.records.measures import (
    HEADLINES,
    LAYER,
    MEASURE,
    QUANTITY,
    SPLIT,
    VALUE,
    WHOLE,
    headlines,
    with_weights_in_names,
)

# Number of checkpoints that are shown beside each other: the first one and the last ones.
_SHOWN_CHECKPOINTS = 3

# Of a measure of more layers than this, only the number of the whole network is shown.
_SHOWN_LAYERS = 24

# A longer name of a network stands above the table, where its column is called A or B.
_LONGEST_NAME = 12

# Measure, split and layer of a number.
_Key = tuple[str, str, str]

# The rows of whole networks that are shown by default, those of `HEADLINES` first.
_FIRST = (*HEADLINES, "error", *(kind.headline[0] for kind in MEASURERS.values()))


class Shown(Enum):
    """Which rows of a table are shown."""

    HEADLINES = "the headline measures of whole networks"
    CHOSEN = "those of the measures that were named, but single tensors where there is a number of all"
    ALL = "all"


def measurement_lines(table: pd.DataFrame, shown: Shown, width: int) -> Iterator[str]:
    """Lay out an analysis for the terminal: a row per measure of a network or of a site, a column per checkpoint.

    A cell is the value ± its standard error; for replicas it is the mean ± the standard deviation over them.

    Args:
        table: The tidy table.
        shown: Which rows are shown.
        width: Columns of the terminal.
    """
    table = with_weights_in_names(table)
    checkpoints = list(dict.fromkeys(zip(table.checkpoint, table.step)))
    columns = checkpoints
    if len(checkpoints) > _SHOWN_CHECKPOINTS:
        columns = [checkpoints[0], *checkpoints[1 - _SHOWN_CHECKPOINTS :]]
        yield f"{len(columns)} of {len(checkpoints)} checkpoints; all are in the files"
    heads = [_heading(*one) for one in columns]
    runs = {head.partition("\n")[0] for head in heads if "\n" in head}
    if len(runs) == 1 and all("\n" in head for head in heads):
        heads = [head.partition("\n")[2] for head in heads]
        yield f"{runs.pop()}: {', '.join(heads)}"
    rows: dict[_Key, pd.DataFrame] = {_key(*key): part for key, part in table.groupby(list(QUANTITY), sort=False)}
    chosen = _chosen(table, list(rows), shown)
    several = table.groupby([*QUANTITY, "checkpoint"], sort=False).size().max() > 1
    if several:
        yield "mean ± standard deviation over replicas"
    cells = {key: [_cell(rows[key][rows[key].checkpoint == path]) for path, _ in columns] for key in chosen}
    right = [Column(head, [cells[key][i] for key in chosen]) for i, head in enumerate(heads)]
    yield from _table(chosen, right, width)
    yield from _left_out(len(chosen), len(rows))
    if len(columns) > 1:
        ends = [{key: rows[key][rows[key].checkpoint == path].value.mean() for key in rows} for path, _ in columns]
        yield from _changes(f"From {_one_line(heads[0])} to {_one_line(heads[-1])}", ends[0], ends[-1])


def difference_lines(table: pd.DataFrame, names: tuple[str, str], shown: Shown, width: int) -> Iterator[str]:
    """Lay out the differences of two networks for the terminal: both values, and the difference ± its standard error.

    Args:
        table: See `lnsgd.analysis.Comparison`.
        names: Names of the two networks.
        shown: Which rows are shown.
        width: Columns of the terminal.
    """
    differences = {(row.measure, row.split, row.layer): row for row in differences_of(table)}
    chosen = _chosen(table, list(differences), shown)
    heads = ["A", "B"]
    if max(map(len, names)) <= _LONGEST_NAME:
        heads = [f"A: {names[0]}", f"B: {names[1]}"]
    else:
        yield f"A: {names[0]}"
        yield f"B: {names[1]}"
    rows = [differences[key] for key in chosen]
    right = [
        Column(heads[0], [plus_minus(row.a, row.stderr_a) for row in rows]),
        Column(heads[1], [plus_minus(row.b, row.stderr_b) for row in rows]),
        Column("B − A", [plus_minus(row.difference, row.stderr) for row in rows]),
    ]
    yield from _table(chosen, right, width)
    yield from _left_out(len(chosen), len(differences))
    values = [{key: getattr(row, name) for key, row in differences.items()} for name in ("a", "b")]
    yield from _changes("From A to B", *values)


def similarity_lines(table: pd.DataFrame, shown: Shown, width: int) -> Iterator[str]:
    """Lay out the similarity of two networks for the terminal: means over pairs ± their standard deviations.

    Args:
        table: See `lnsgd.analysis.Comparison`.
        shown: Which rows are shown; without `ALL`, single activation sites are left out where there are several.
        width: Columns of the terminal.
    """
    sites = set(table[LAYER]) - set(WHOLE)
    every = shown is Shown.ALL or len(sites) <= 1
    listed = table if every else table[table[LAYER].isin(WHOLE)]
    found = {_key(*key): _mean(rows[VALUE]) for key, rows in listed.groupby([MEASURE, SPLIT, LAYER], sort=False)}
    several = len(sites) > 1
    keys: list[_Key] = list(dict.fromkeys((measure, "", layer if several else "") for measure, _, layer in found))
    splits = list(dict.fromkeys(table[SPLIT]))
    site = "" if several else "".join(sites)

    def cell(measure: str, split: str, layer: str) -> str:
        return found.get((measure, split, layer), found.get((measure, split, site), "–"))

    yield "how alike A and B are" + (f"; active units of {site}" if site else "")
    yield from _table(keys, [Column(split, [cell(key[0], split, key[2]) for key in keys]) for split in splits], width)
    yield from _left_out(len(listed), len(table))


def _chosen(table: pd.DataFrame, keys: Sequence[_Key], shown: Shown) -> list[_Key]:
    """Return which quantities are shown, in the order of their rows."""
    if shown is Shown.ALL:
        return list(keys)
    of_whole = [key for key in keys if key[2] in WHOLE and _measure(key) in _FIRST]
    if shown is Shown.CHOSEN or not of_whole:
        named = headlines(table, _SHOWN_LAYERS)
        return list(dict.fromkeys(_key(*row) for row in named[list(QUANTITY)].itertuples(index=False, name=None)))
    return sorted(of_whole, key=lambda key: _FIRST.index(_measure(key)))


def _key(measure: object, split: object, layer: object) -> _Key:
    return str(measure), str(split), str(layer)


def _measure(key: _Key) -> str:
    """Return the measure of a quantity, whichever weights it was taken of: ``error`` for ``averaged/error``."""
    return key[0].rpartition("/")[2]


def _table(keys: Sequence[_Key], right: Sequence[Column], width: int) -> Iterator[str]:
    """Lay out quantities and their numbers, with a line for what all quantities have in common."""
    layers = [layer for *_, layer in keys if layer not in WHOLE]
    prefix = common_prefix(layers)
    names = [
        Column("measure", [measure for measure, *_ in keys], is_text=True),
        Column("split", [split for _, split, _ in keys], is_text=True),
        Column("layer", [layer.removeprefix(prefix) if layers else "" for *_, layer in keys], is_text=True),
    ]
    left, equal = split_off_equal(names[1:])
    caption = [f"{column.head}: {column.cells[0]}" for column in equal if column.cells[0]]
    caption += [f"layers in {prefix.rstrip('.')}"] if prefix else []
    left = [column for column in left if any(column.cells)]
    if caption:
        yield "; ".join(caption)
    for lines in tables([names[0], *left], right, width):
        yield ""
        yield from lines
    yield ""


def _left_out(shown: int, rows: int) -> Iterator[str]:
    if shown < rows:
        yield f"{shown} of {rows} rows; --all shows the others"


def _changes(between: str, before: Mapping[_Key, float], after: Mapping[_Key, float]) -> Iterator[str]:
    """Say by how much the headline measures differ, in one sentence; nothing if none can be compared."""
    said = []
    for measure, short in HEADLINES.items():
        keys = [key for key in before if key[0] == measure and key[2] in WHOLE]
        key = next((key for key in keys if key[1] in ("train", "")), keys[0] if keys else None)
        if key is None or not before[key] > 0 or not math.isfinite(after.get(key, math.nan)):
            continue
        change = 100 * (after[key] / before[key] - 1)
        said.append(f"{short} {'+' if change > 0 else ''}{number(change, 2)} %")
    if said:
        yield f"{between}: {', '.join(said)}."


def _one_line(head: str) -> str:
    return head.replace("\n", " ")


def _heading(path: str, step: object) -> str:
    *_, run, name = ("", *str(path).replace("/checkpoints/", "/").split("/"))
    return f"{run}/{name}" if pd.isna(step) else f"{run}\nstep {step}"  # type: ignore[call-overload]


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "–"
    return _mean(rows.value) if len(rows) > 1 else plus_minus(rows.value.iloc[0], rows.stderr.iloc[0])


def _mean(values: pd.Series) -> str:
    return plus_minus(values.mean(), values.std(ddof=1))
