"""The cells of a sweep: the points of its grid, each identified by a hash of its resolved config."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from lnsgd.records.changes import leaves
from lnsgd.sweep.grid import Point, Sweep

# Values of a resolved config by path, such as ``model.init_args.net.init_args.widths``.
Leaves = Mapping[str, Any]

_MODULUS = 2**256
_DIGITS = 16


@dataclass(frozen=True)
class Cell:
    """One point of a sweep's grid, with its seed.

    Attributes:
        name: Hash of the resolved config, 16 hexadecimal digits. A run has the same name in every sweep that holds it.
        options: The options that the sweep sets in this cell, by their names on the command line.
        changes: The values, by path, in which the resolved config differs from that of the sweep's first cell. A path
            that a config does not have counts as ``None``.
    """

    name: str
    options: Point
    changes: Leaves


@dataclass(frozen=True)
class Cells:
    """All cells of a sweep.

    Attributes:
        first: The resolved config of the first cell.
        cells: All cells in the order of the grid: the last axis varies fastest.
    """

    first: Leaves
    cells: tuple[Cell, ...]


def resolve_cells(sweep: Sweep, resolve: Callable[[Point], Mapping[str, Any]]) -> Cells:
    """Resolve and check all cells of a sweep.

    Resolving one config takes a fifth of a second, and a sweep may have 100,000 cells. Therefore only one cell for
    each point of each axis is resolved, and the other cells are combined from the changes that these points make. Axes
    that change the same paths (the class of a network, and its widths) are first merged into one axis.

    Args:
        sweep: The sweep.
        resolve: Maps options to their resolved config; raises ValueError for options that are not valid.

    Raises:
        ValueError: An option does not exist or has a value of the wrong type, or two cells are the same run.
    """
    axes = sweep.axes
    while True:
        first, changes = _find_changes(axes, resolve)
        overlapping = _find_overlap(changes)
        if overlapping is None:
            break
        axes = _merge_axes(axes, *overlapping)
    hashes = [[_hash_difference(first, change) for change in axis] for axis in changes]
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
            raise ValueError(f"{sweep.name}: {names[name]} and {options} are the same run; remove one of them")
        names[name] = options
        cells.append(Cell(name, options, changed))
    return Cells(first, tuple(cells))


def _find_changes(
    axes: Sequence[Sequence[Point]], resolve: Callable[[Point], Mapping[str, Any]]
) -> tuple[dict[str, Any], list[list[Leaves]]]:
    """Resolve the first cell, and find what each point of each axis changes in it."""
    start = {name: value for axis in axes for name, value in axis[0].items()}
    first = leaves(resolve(start))
    changes: list[list[Leaves]] = []
    for axis in axes:
        resolved = [leaves(resolve({**start, **point})) for point in axis[1:]]
        changes.append([{}, *({p: r.get(p) for p in first.keys() | r if first.get(p) != r.get(p)} for r in resolved)])
    return first, changes


def _find_overlap(changes: Sequence[Sequence[Leaves]]) -> tuple[int, int] | None:
    """Find two axes that change the same path."""
    owner: dict[str, int] = {}
    for number, axis in enumerate(changes):
        for path in {path for change in axis for path in change}:
            if path in owner:
                return owner[path], number
            owner[path] = number
    return None


def _merge_axes(axes: Sequence[tuple[Point, ...]], one: int, other: int) -> tuple[tuple[Point, ...], ...]:
    both = tuple({**a, **b} for a, b in product(axes[one], axes[other]))
    return tuple(both if number == one else axis for number, axis in enumerate(axes) if number != other)


def digest(path: str, value: Any) -> int:
    """Hash one leaf of a config.

    The hash of a config is the sum over its leaves, so that changes can be added to it; a null leaf adds 0. 2 and 2.0
    have the same hash, because the parser makes either of an ``int | float``, depending on earlier imports.
    """
    if value is None:
        return 0
    text = json.dumps([path, _normalize(value)], ensure_ascii=False, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _normalize(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (list, tuple)):
        return [_normalize(entry) for entry in value]
    return {name: _normalize(entry) for name, entry in value.items()} if isinstance(value, Mapping) else value


def _hash_difference(first: Leaves, change: Leaves) -> int:
    return sum(digest(path, value) - digest(path, first.get(path)) for path, value in change.items())
