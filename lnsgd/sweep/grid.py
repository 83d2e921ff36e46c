"""A sweep as it is written: base configs and what is varied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from lnsgd.loggers.wandb import WandbGroup, check_project
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.texts import load_yaml

# Options that go together, by their names on the command line.
Point = Mapping[str, Any]

_KEYS = ("base", "options", "grid", "zip", "seeds", "wandb")
SEED = "seed_everything"

# More are a slip of the pen, and would fill the memory before the first run begins.
_MOST_SEEDS, _MOST_CELLS = 10_000, 1_000_000


@dataclass(frozen=True)
class Sweep:
    """What a file in ``configs/sweeps/`` says.

    Attributes:
        name: Name of the file.
        base: Configs of every run, as for ``lnsgd fit --config``; a later one overrides an earlier one.
        options: Options that all runs share.
        axes: What is varied: one point of each axis makes a cell.
        wandb: The group of Weights & Biases that every run is logged to; ``None`` for none.
    """

    name: str
    base: tuple[Path, ...]
    options: Point
    axes: tuple[tuple[Point, ...], ...]
    wandb: WandbGroup | None = None

    def __len__(self) -> int:
        """Number of cells."""
        cells = 1
        for axis in self.axes:
            cells *= len(axis)
        return cells


def read_sweep(path: Path) -> Sweep:
    """Reads a sweep.

    ``base`` is a config or a list of them, relative to the file. ``grid`` maps options to lists of values, of which
    every combination is a cell. ``zip`` is a list of such mappings in each of which the lists are as long as each
    other and go together, value by value. ``seeds`` is a number of seeds, counted from 0 on, or a list. ``options``
    are the same in all cells. Options have the names that they have on the command line, without dashes. ``wandb:
    true`` logs every run to Weights & Biases, as a group of the sweep's name, and ``wandb: {group: G, project: P}`` as
    another; it changes nothing else, and does not count in a cell's hash.

    Raises:
        ValueError: the file says nothing of this kind, or gives a list that is empty or repeats a value, lists of
            different lengths to zip, an option twice, a base config that does not exist, or for wandb anything but
            true, false, a group, or a project.
    """
    given = _mapping(path)
    if unknown := sorted(set(given) - set(_KEYS)):
        raise ValueError(f"{path}: there is no {unknown[0]!r} in a sweep; it takes {', '.join(_KEYS)}")
    if "base" not in given:
        raise ValueError(f"{path}: base is missing; name the config that is varied, such as base: ../mnist.yaml")
    base = given["base"] if isinstance(given["base"], list) else [given["base"]]
    files = tuple((path.parent / str(name)).resolve() for name in base)
    if missing := [file for file in files if not file.is_file()]:
        raise ValueError(f"{path}: base = {missing[0]} does not exist; give a config relative to the sweep's file")
    options = _options(path, "options", given.get("options") or {})
    axes = [_axis(path, {name: values}) for name, values in _options(path, "grid", given.get("grid") or {}).items()]
    zipped = given.get("zip") or []
    if not isinstance(zipped, list):
        raise ValueError(f"{path}: zip = {zipped}; give a list of mappings from options to lists")
    axes += [_axis(path, _options(path, "zip", lists)) for lists in zipped]
    if "seeds" in given:
        axes.append(_axis(path, {SEED: _seeds(path, given["seeds"])}))
    _check_once(path, options, axes)
    sweep = Sweep(path.stem, files, options, tuple(axes), _wandb(path, given.get("wandb", False)))
    if prod(map(len, axes)) > _MOST_CELLS:
        raise ValueError(f"{path} has {prod(map(len, axes)):,} cells; vary less, at most {_MOST_CELLS:,} cells")
    return sweep


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such sweep; see configs/sweeps/")
    try:
        given = load_yaml(path)
    except UnreadableError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds no sweep; write base: and grid: as in configs/sweeps/")
    return given


def _options(path: Path, key: str, given: object) -> dict[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{path}: {key} = {given}; give names of options and what they are set to")
    return given


def _wandb(path: Path, given: object) -> WandbGroup | None:
    if isinstance(given, bool):
        return WandbGroup(path.stem) if given else None
    known = isinstance(given, dict) and set(given) <= {"group", "project"}
    if not isinstance(given, dict) or not known or not all(isinstance(name, str) for name in given.values()):
        raise ValueError(f"{path}: wandb = {given}; give true or false, or group: and project:")
    if "project" in given:
        check_project(given["project"])
    return WandbGroup(given.get("group", path.stem), given.get("project"))


def _axis(path: Path, lists: Mapping[str, Any]) -> tuple[Point, ...]:
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{path}: {name} = {values}; give a list of one or more values")
    for (name, values), (other, others) in pairwise(lists.items()):
        if len(values) != len(others):
            raise ValueError(
                f"{path}: {name} has {len(values)} values and {other} {len(others)}; what is zipped must be as long"
            )
    points = tuple(dict(zip(lists, values)) for values in zip(*lists.values()))
    for number, point in enumerate(points):
        if point in points[:number]:
            raise ValueError(f"{path}: {_said(point)} is there twice; every cell must differ from the others")
    return points


def _seeds(path: Path, given: object) -> list[int]:
    if type(given) is int and given > _MOST_SEEDS:
        raise ValueError(f"{path}: seeds = {given}; give at most {_MOST_SEEDS:,} seeds")
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f"{path}: seeds = {given}; give a number of seeds, or a list of integers >= 0")
    return seeds


def _check_once(path: Path, options: Point, axes: Sequence[Sequence[Point]]) -> None:
    seen = set(options)
    for axis in axes:
        for name in axis[0]:
            if name in seen:
                raise ValueError(f"{path}: {name} is given twice; set it in one place")
        seen |= set(axis[0])


def _said(point: Point) -> str:
    return ", ".join(f"{name} = {value}" for name, value in point.items())
