"""Jobs: which cells run together, as replicas of one program, and why others do not."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from lnsgd.sweep.cells import Cell, Leaves
from lnsgd.sweep.grid import SEED

_SUBSET = "data.init_args.subset"

# Paths of a resolved config in which replicas may differ, and what `ReplicaGrid` calls them.
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
    """What tells a replica from the others of its job; ``None`` where the config has no such value."""

    seeds: int
    noise: float | None
    lr: float | None
    subset: int | None


class Verdict(NamedTuple):
    """Whether cells of one structure can be replicas.

    Attributes:
        most: How many at most, bounded by memory; 1 where they cannot.
        reason: Why, in words.
        alone: Whether a cell that is left alone is a replica too, since that is faster than an ordinary run.
    """

    most: int
    reason: str
    alone: bool = False


@dataclass(frozen=True)
class Job:
    """Cells that run together.

    Attributes:
        name: Hash of the names of its cells, and of whether they are replicas: the same whenever these are packed so.
        cells: In the order of the replicas; a single one may be an ordinary run.
        settings: For each field of `lnsgd.replicas.ReplicaGrid` its values; ``None`` for an ordinary run.
        reason: Why the cells were packed in this way.
    """

    name: str
    cells: tuple[Cell, ...]
    settings: Mapping[str, list[Any]] | None
    reason: str


def pack(first: Leaves, cells: Iterable[Cell], judge: Callable[[Cell], Verdict]) -> list[Job]:
    """Packs cells that differ only in seed, noise level, learning rate or training subset into replicated jobs.

    Cells that do not make a full grid of these are packed as several. Those with different subsets are packed only
    where runs are limited by steps alone and batches have a size: an epoch of replicas, or a batch of all examples,
    is that of the largest of their training sets, so that they would not take the steps that they take alone.

    Args:
        first: The resolved config that cells differ from.
        cells: What is to be run.
        judge: Called for one cell of each group.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in cells:
        apart = {p: v for p, v in cell.changes.items() if not packable(p)}
        if _SUBSET in cell.changes and _counts_epochs(first, cell):
            apart[_SUBSET] = cell.changes[_SUBSET]
        rest = ((p, json.dumps(v, sort_keys=True, default=str)) for p, v in apart.items())
        groups.setdefault(tuple(sorted(rest)), []).append(cell)
    return [job for members in groups.values() for job in _jobs(first, members, judge(members[0]))]


def _counts_epochs(first: Leaves, cell: Cell) -> bool:
    """Whether the steps that a cell takes depend on the size of its training set."""
    epochs, steps, batch_size = (cell.changes.get(path, first.get(path)) for path in (_EPOCHS, _STEPS, _BATCH_SIZE))
    return batch_size is None or epochs not in _UNLIMITED or steps in _UNLIMITED


def packable(path: str) -> bool:
    """Whether replicas may differ in what a path of a resolved config says."""
    return path in _PACKABLE or path in _LINKED


def _jobs(first: Leaves, cells: Sequence[Cell], verdict: Verdict) -> list[Job]:
    if verdict.most <= 1 and not verdict.alone:
        return [Job(_name([cell], False), (cell,), None, verdict.reason) for cell in cells]
    by_setting = {_setting({**first, **cell.changes}): cell for cell in cells}
    jobs = []
    for box in boxes(list(by_setting)):
        for part in split(box, verdict.most):
            # The order in which a ReplicaGrid counts its replicas.
            members = [by_setting[Setting(s, noise, lr, m)] for noise, lr, m, s in product(*part[1:], part[0])]
            settings = None if len(members) == 1 and not verdict.alone else settings_of(first, members)
            jobs.append(Job(_name(members, settings is not None), tuple(members), settings, verdict.reason))
    return jobs


def settings_of(first: Leaves, cells: Iterable[Cell]) -> dict[str, list[Any]]:
    """The fields of `lnsgd.replicas.ReplicaGrid` of cells that are a full grid, each value once, in their order."""
    columns = zip(*(_setting({**first, **cell.changes}) for cell in cells))
    found = {name: list(dict.fromkeys(column)) for name, column in zip(_FIELDS, columns)}
    return {name: values for name, values in found.items() if values != [None]}


def _setting(config: Leaves) -> Setting:
    values: dict[str, Any] = dict.fromkeys(_FIELDS)
    for path, name in _PACKABLE.items():
        if config.get(path) is not None:
            values[name] = config[path]
    return Setting(**values)


def _name(cells: Sequence[Cell], replicated: bool) -> str:
    # An ordinary run cannot go on from the checkpoint of replicas: it gets a folder of its own.
    text = " ".join([*(cell.name for cell in cells), *(["replicated"] if replicated else [])])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Values of each field of `Setting`, of which all combinations are meant.
Box = tuple[tuple[Any, ...], ...]


def boxes(settings: Sequence[Setting]) -> list[Box]:
    """Few boxes that together hold each of the settings once; one where they are a full grid.

    Settings that agree in all fields but one are joined, for one field after the other.

    Example:
        >>> boxes([Setting(0, 0.1, None, None), Setting(1, 0.1, None, None), Setting(0, 0.2, None, None)])
        [((0, 1), (0.1,), (None,), (None,)), ((0,), (0.2,), (None,), (None,))]
    """
    found: list[Box] = [tuple((value,) for value in setting) for setting in settings]
    for field in range(len(_FIELDS)):
        joined: dict[Box, list[Any]] = {}
        for box in found:
            joined.setdefault((*box[:field], *box[field + 1 :]), []).extend(box[field])
        found = [(*rest[:field], tuple(values), *rest[field:]) for rest, values in joined.items()]
    return found


def split(box: Box, most: int) -> list[Box]:
    """Parts of a box with at most so many combinations each: seeds stay together as long as they can."""
    sizes = [len(values) for values in box]
    total = 1
    for size in sizes:
        total *= size
    if total <= most:
        return [box]
    field = next((f for f in reversed(range(len(box))) if sizes[f] > 1 and f > 0), 0)
    at_once = max(1, most // (total // sizes[field]))
    parts = [box[field][i : i + at_once] for i in range(0, sizes[field], at_once)]
    return [smaller for part in parts for smaller in split((*box[:field], part, *box[field + 1 :]), most)]
