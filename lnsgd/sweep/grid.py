"""The file that describes a sweep: its base configs, and the options that are varied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from lnsgd.loggers.wandb import WandbGroup, check_project
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.texts import load_yaml

# Options that are set together, by their names on the command line.
Point = Mapping[str, Any]

_KEYS = ("base", "options", "grid", "zip", "seeds", "wandb")
SEED = "seed_everything"

# Larger numbers are typing errors, and would fill the memory before the first run starts.
_MAX_SEEDS, _MAX_CELLS = 10_000, 1_000_000


@dataclass(frozen=True)
class Sweep:
    """The content of a file in ``configs/sweeps/``.

    Attributes:
        name: Name of the file.
        base: Configs of every run, as for ``lnsgd fit --config``; a later one overrides an earlier one.
        options: Options that all runs share.
        axes: The points that are varied: one point of each axis makes a cell.
        wandb: The Weights & Biases group that every run is logged to; ``None`` for no logging there.
    """

    name: str
    base: tuple[Path, ...]
    options: Point
    axes: tuple[tuple[Point, ...], ...]
    wandb: WandbGroup | None = None

    def __len__(self) -> int:
        """Return the number of cells."""
        return prod(map(len, self.axes))


def read_sweep(path: Path) -> Sweep:
    """Read the file of a sweep.

    ``base`` is a config or a list of configs, relative to the file. ``grid`` maps options to lists of values; every
    combination of them is a cell. ``zip`` is a list of such mappings; within each mapping the lists have the same
    length and are combined value by value. ``seeds`` is a number of seeds, counted from 0, or a list of seeds.
    ``options`` are the same in all cells. Options have their names on the command line, without dashes. ``wandb: true``
    logs every run to Weights & Biases, in a group that has the name of the sweep; ``wandb: {group: G, project: P}``
    names another group or project. ``wandb`` changes nothing else, and is not part of the hash of a cell.

    Raises:
        ValueError: The file is not a sweep; a list is empty or repeats a value; zipped lists differ in length; an
            option is given twice; a base config does not exist; or ``wandb`` is not true, false, a group or a project.
    """
    given = _read_mapping(path)
    if unknown := sorted(set(given) - set(_KEYS)):
        raise ValueError(f"{path}: {unknown[0]!r} is not a key of a sweep; the keys are {', '.join(_KEYS)}")
    if "base" not in given:
        raise ValueError(f"{path}: base is missing; name the config that is varied, such as base: ../mnist.yaml")
    base = given["base"] if isinstance(given["base"], list) else [given["base"]]
    files = tuple((path.parent / str(name)).resolve() for name in base)
    if missing := [file for file in files if not file.is_file()]:
        raise ValueError(f"{path}: base = {missing[0]} does not exist; give a config relative to the sweep's file")
    options = _read_options(path, "options", given.get("options") or {})
    grid = _read_options(path, "grid", given.get("grid") or {})
    axes = [_make_axis(path, {name: values}) for name, values in grid.items()]
    zipped = given.get("zip") or []
    if not isinstance(zipped, list):
        raise ValueError(f"{path}: zip = {zipped} is not a list; give a list of mappings from options to lists")
    axes += [_make_axis(path, _read_options(path, "zip", lists)) for lists in zipped]
    if "seeds" in given:
        axes.append(_make_axis(path, {SEED: _read_seeds(path, given["seeds"])}))
    _check_options_are_set_once(path, options, axes)
    sweep = Sweep(path.stem, files, options, tuple(axes), _read_wandb(path, given.get("wandb", False)))
    if len(sweep) > _MAX_CELLS:
        raise ValueError(f"{path} has {len(sweep):,} cells, and at most {_MAX_CELLS:,} are allowed; vary less")
    return sweep


def _read_mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: this sweep does not exist; see configs/sweeps/ for examples")
    try:
        given = load_yaml(path)
    except UnreadableError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} is not a sweep; write base: and grid: as in configs/sweeps/")
    return given


def _read_options(path: Path, key: str, given: object) -> dict[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{path}: {key} = {given} is not a mapping; give names of options with their values")
    return given


def _read_wandb(path: Path, given: object) -> WandbGroup | None:
    if isinstance(given, bool):
        return WandbGroup(path.stem) if given else None
    known = isinstance(given, dict) and set(given) <= {"group", "project"}
    if not isinstance(given, dict) or not known or not all(isinstance(name, str) for name in given.values()):
        raise ValueError(f"{path}: wandb = {given}; give true or false, or group: and project:")
    if "project" in given:
        check_project(given["project"])
    return WandbGroup(given.get("group", path.stem), given.get("project"))


def _make_axis(path: Path, lists: Mapping[str, Any]) -> tuple[Point, ...]:
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{path}: {name} = {values}; give a list of one or more values")
    for (name, values), (other, others) in pairwise(lists.items()):
        if len(values) != len(others):
            raise ValueError(
                f"{path}: {name} has {len(values)} values and {other} {len(others)}; zipped lists need the same length"
            )
    points = tuple(dict(zip(lists, values)) for values in zip(*lists.values()))
    for number, point in enumerate(points):
        if point in points[:number]:
            text = ", ".join(f"{name} = {value}" for name, value in point.items())
            raise ValueError(f"{path}: {text} is given twice; every cell must differ from the others")
    return points


def _read_seeds(path: Path, given: object) -> list[int]:
    if type(given) is int and given > _MAX_SEEDS:
        raise ValueError(f"{path}: seeds = {given}; give at most {_MAX_SEEDS:,} seeds")
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f"{path}: seeds = {given}; give a number of seeds, or a list of integers >= 0")
    return seeds


def _check_options_are_set_once(path: Path, options: Point, axes: Sequence[Sequence[Point]]) -> None:
    seen = set(options)
    for axis in axes:
        for name in axis[0]:
            if name in seen:
                raise ValueError(f"{path}: {name} is given twice; set it in one place")
        seen |= set(axis[0])
