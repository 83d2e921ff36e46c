"""Cells: the points of a sweep's grid, each known by a hash of its resolved config."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from lnsgd.sweep.grid import Point, Sweep

# Values of a resolved config by path, such as ``model.init_args.net.init_args.widths``.
Leaves = Mapping[str, Any]

_MODULUS = 2**256
_DIGITS = 16


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: Hash of its resolved config, 16 hexadecimal digits: the same in every sweep that has this run.
        options: What the sweep sets in it, by the names on the command line.
        changes: In what its resolved config differs from that of the sweep's first cell, by path; what is not
            there counts as ``None``.
    """

    name: str
    options: Point
    changes: Leaves


@dataclass(frozen=True)
class Cells:
    """All cells of a sweep.

    Attributes:
        first: The resolved config of the first.
        cells: All of them, in the grid's order: the last axis varies fastest.
    """

    first: Leaves
    cells: tuple[Cell, ...]


def resolved_cells(sweep: Sweep, resolve: Callable[[Point], Mapping[str, Any]]) -> Cells:
    """The cells of a sweep, checked.

    To resolve a config takes a fifth of a second, and a sweep may have 100,000. So only one cell for each point of
    each axis is resolved; the others are put together from what these change. Axes that change the same paths (a
    network's class, and its widths) are first made one axis of all their combinations.

    Args:
        sweep: The sweep.
        resolve: From options to the resolved config that they give; raises ValueError where they give none.

    Raises:
        ValueError: an option that does not exist, or has a value of the wrong type; two cells that are the same run.
    """
    axes = sweep.axes
    while True:
        first, changes = _changes(axes, resolve)
        overlapping = _overlap(changes)
        if overlapping is None:
            break
        axes = _merged(axes, *overlapping)
    hashes = [[_difference(first, change) for change in axis] for axis in changes]
    start = sum(digest(path, value) for path, value in first.items())
    cells: list[Cell] = []
    names: dict[str, Point] = {}
    for numbers in product(*(range(len(axis)) for axis in axes)):
        options: dict[str, Any] = {}
        changed: dict[str, Any] = {}
        total = start
        for axis, number in enumerate(numbers):
            options |= axes[axis][number]
            changed |= changes[axis][number]
            total += hashes[axis][number]
        name = f"{total % _MODULUS:064x}"[:_DIGITS]
        if name in names:
            raise ValueError(f"{sweep.name}: {names[name]} and {options} are the same run; leave one of them out")
        names[name] = options
        cells.append(Cell(name, options, changed))
    return Cells(first, tuple(cells))


def leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a nested config by path; lists of nested configs by their places, other lists as they are."""
    return dict(_walk("", config))


def _walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    nested: Any = None
    if isinstance(value, Mapping) and value:
        nested = value.items()
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        nested = enumerate(value)
    if nested is None:
        yield path, value
        return
    for name, inner in nested:
        yield from _walk(f"{path}.{name}" if path else str(name), inner)


def _changes(
    axes: Sequence[Sequence[Point]], resolve: Callable[[Point], Mapping[str, Any]]
) -> tuple[dict[str, Any], list[list[Leaves]]]:
    """The first cell, and what each point of each axis changes in it."""
    start = {name: value for axis in axes for name, value in axis[0].items()}
    first = leaves(resolve(start))
    changes: list[list[Leaves]] = []
    for axis in axes:
        resolved = [leaves(resolve({**start, **point})) for point in axis[1:]]
        changes.append([{}, *({p: r.get(p) for p in first.keys() | r if first.get(p) != r.get(p)} for r in resolved)])
    return first, changes


def _overlap(changes: Sequence[Sequence[Leaves]]) -> tuple[int, int] | None:
    """Two axes that change the same path."""
    owner: dict[str, int] = {}
    for number, axis in enumerate(changes):
        for path in {path for change in axis for path in change}:
            if path in owner:
                return owner[path], number
            owner[path] = number
    return None


def _merged(axes: Sequence[tuple[Point, ...]], one: int, other: int) -> tuple[tuple[Point, ...], ...]:
    both = tuple({**a, **b} for a, b in product(axes[one], axes[other]))
    return tuple(both if number == one else axis for number, axis in enumerate(axes) if number != other)


def digest(path: str, value: Any) -> int:
    """A leaf's part of a hash; those of all leaves are summed, so that changes can be added. That of null is 0.

    2 and 2.0 are the same: which of them the parser makes of an ``int | float`` depends on what was imported before.
    """
    if value is None:
        return 0
    text = json.dumps([path, _plain(value)], ensure_ascii=False, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return {name: _plain(entry) for name, entry in value.items()} if isinstance(value, Mapping) else value


def _difference(first: Leaves, change: Leaves) -> int:
    return sum(digest(path, value) - digest(path, first.get(path)) for path, value in change.items())
