"""Packing: group the cells that can run together, as replicas of one program, into jobs."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, NamedTuple

from lnsgd.sweep.cells import Cell, Leaves
from lnsgd.sweep.grid import SEED

_SUBSET = "data.init_args.subset"

# Paths of a resolved config in which replicas may differ, and the field of `ReplicaGrid` for each.
_PACKABLE = {
    SEED: "seeds",
    "model.init_args.label_noise.init_args.p": "noise",
    "model.init_args.label_noise.init_args.std": "noise",
    "model.init_args.optimizer.init_args.lr": "lr",
    _SUBSET: "subset",
}
# Keys that follow the seed.
_LINKED = ("model.init_args.seed", "data.init_args.seed")

_FIELDS = ("seeds", "noise", "lr", "subset")

_BATCH_SIZE = "data.init_args.batch_size"
_EPOCHS, _STEPS = "trainer.max_epochs", "trainer.max_steps"
_UNLIMITED = (None, -1)


class Setting(NamedTuple):
    """The values in which a replica may differ from the others of its job; ``None`` where the config has no value."""

    seeds: int
    noise: float | None
    lr: float | None
    subset: int | None


class Capacity(NamedTuple):
    """The number of cells of one structure that a job can hold.

    Attributes:
        max_replicas: The largest number of replicas, bounded by memory; 1 if the cells cannot be replicas.
        reason: The reason, in words.
        replicates_single: Whether a single cell also runs as a replica, because that is faster than an ordinary run.
    """

    max_replicas: int
    reason: str
    replicates_single: bool = False


@dataclass(frozen=True)
class Job:
    """Cells that run together.

    Attributes:
        name: Hash of the names of the cells and of whether they are replicas. The same packing has the same name.
        cells: The cells in the order of the replicas; a single cell may be an ordinary run.
        settings: The values of each field of `lnsgd.replicas.ReplicaGrid`; ``None`` for an ordinary run.
        reason: Why the cells were packed in this way.
    """

    name: str
    cells: tuple[Cell, ...]
    settings: Mapping[str, list[Any]] | None
    reason: str


def pack(first: Leaves, cells: Iterable[Cell], capacity_of: Callable[[Cell], Capacity]) -> list[Job]:
    """Pack cells that differ only in seed, noise level, learning rate or training subset into replicated jobs.

    Cells that are not a full grid of these settings become several jobs. Cells with different subsets are packed
    together only if runs are limited by steps alone and batches have a fixed size. Otherwise they would not take the
    steps that they take alone, because an epoch of replicas, or a batch of all examples, is that of the largest
    training set.

    Args:
        first: The resolved config of the sweep's first cell.
        cells: The cells to run.
        capacity_of: Called with one cell of each group.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in cells:
        apart = {p: v for p, v in cell.changes.items() if not is_packable(p)}
        if _SUBSET in cell.changes and _steps_depend_on_size(first, cell):
            apart[_SUBSET] = cell.changes[_SUBSET]
        rest = ((p, json.dumps(v, sort_keys=True, default=str)) for p, v in apart.items())
        groups.setdefault(tuple(sorted(rest)), []).append(cell)
    return [job for members in groups.values() for job in _make_jobs(first, members, capacity_of(members[0]))]


def _steps_depend_on_size(first: Leaves, cell: Cell) -> bool:
    """Return whether the number of steps of a cell depends on the size of its training set."""
    epochs, steps, batch_size = (cell.changes.get(path, first.get(path)) for path in (_EPOCHS, _STEPS, _BATCH_SIZE))
    return batch_size is None or epochs not in _UNLIMITED or steps in _UNLIMITED


def is_packable(path: str) -> bool:
    """Return whether replicas of one job may have different values at a path of the resolved config."""
    return path in _PACKABLE or path in _LINKED


def _make_jobs(first: Leaves, cells: Sequence[Cell], capacity: Capacity) -> list[Job]:
    if capacity.max_replicas <= 1 and not capacity.replicates_single:
        return [Job(_job_name([cell], False), (cell,), None, capacity.reason) for cell in cells]
    by_setting = {_setting_of({**first, **cell.changes}): cell for cell in cells}
    jobs = []
    for box in cover_by_boxes(list(by_setting)):
        for part in split_box(box, capacity.max_replicas):
            # The order in which a ReplicaGrid counts its replicas.
            members = [by_setting[Setting(s, noise, lr, m)] for noise, lr, m, s in product(*part[1:], part[0])]
            single = len(members) == 1 and not capacity.replicates_single
            settings = None if single else replica_settings(first, members)
            jobs.append(Job(_job_name(members, settings is not None), tuple(members), settings, capacity.reason))
    return jobs


def replica_settings(first: Leaves, cells: Iterable[Cell]) -> dict[str, list[Any]]:
    """Collect the fields of `lnsgd.replicas.ReplicaGrid` for cells that are a full grid; each value once, in order."""
    columns = zip(*(_setting_of({**first, **cell.changes}) for cell in cells))
    found = {name: list(dict.fromkeys(column)) for name, column in zip(_FIELDS, columns)}
    return {name: values for name, values in found.items() if values != [None]}


def _setting_of(config: Leaves) -> Setting:
    values: dict[str, Any] = dict.fromkeys(_FIELDS)
    for path, name in _PACKABLE.items():
        if config.get(path) is not None:
            values[name] = config[path]
    return Setting(**values)


def _job_name(cells: Sequence[Cell], replicated: bool) -> str:
    # An ordinary run cannot resume from a checkpoint of replicas, so it needs another name and folder.
    text = " ".join([*(cell.name for cell in cells), *(["replicated"] if replicated else [])])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Values of each field of `Setting`; the box stands for all their combinations.
Box = tuple[tuple[Any, ...], ...]


def cover_by_boxes(settings: Sequence[Setting]) -> list[Box]:
    """Cover settings by few boxes that together hold each setting once; a full grid is covered by one box.

    For one field after the other, boxes that agree in all other fields are joined.

    Example:
        >>> cover_by_boxes([Setting(0, 0.1, None, None), Setting(1, 0.1, None, None), Setting(0, 0.2, None, None)])
        [((0, 1), (0.1,), (None,), (None,)), ((0,), (0.2,), (None,), (None,))]
    """
    found: list[Box] = [tuple((value,) for value in setting) for setting in settings]
    for field in range(len(_FIELDS)):
        joined: dict[Box, list[Any]] = {}
        for box in found:
            joined.setdefault((*box[:field], *box[field + 1 :]), []).extend(box[field])
        found = [(*rest[:field], tuple(values), *rest[field:]) for rest, values in joined.items()]
    return found


def split_box(box: Box, largest: int) -> list[Box]:
    """Split a box into parts of at most ``largest`` combinations each, keeping seeds together as long as possible."""
    sizes = [len(values) for values in box]
    total = prod(sizes)
    if total <= largest:
        return [box]
    field = next((f for f in reversed(range(len(box))) if sizes[f] > 1 and f > 0), 0)
    at_once = max(1, largest // (total // sizes[field]))
    parts = [box[field][i : i + at_once] for i in range(0, sizes[field], at_once)]
    return [smaller for part in parts for smaller in split_box((*box[:field], part, *box[field + 1 :]), largest)]
