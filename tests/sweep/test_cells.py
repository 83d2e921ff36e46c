"""Cells are combined from few resolved configs and identified by a hash of the whole resolved config."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest

from lnsgd.sweep.cells import digest, leaves, resolve_cells
from lnsgd.sweep.grid import Sweep

DEFAULTS: dict[str, Any] = {"MLP": {"widths": [5], "bias": True}, "ResNet": {"width": 16}}


def resolve(options: Mapping[str, Any]) -> dict[str, Any]:
    """Stand in for the parser: each class has its own options with defaults; all other options are numbers."""
    kind = options.get("net", "MLP")
    arguments = dict(DEFAULTS[kind])
    config: dict[str, Any] = {"net": {"class": kind, "arguments": arguments}, "lr": 1, "p": None, "seed_everything": 0}
    for name, value in options.items():
        if name.startswith("net."):
            if name[4:] not in arguments:
                raise ValueError(f"{kind} has no option {name[4:]}")
            arguments[name[4:]] = value
        elif name != "net":
            config[name] = value
    return config


def sweep(*axes) -> Sweep:
    return Sweep("example", (), {}, tuple(tuple(axis) for axis in axes))


def grid(**lists) -> list[list[dict[str, Any]]]:
    return [[{name.replace("__", "."): value} for value in values] for name, values in lists.items()]


def whole_hash(options: Mapping[str, Any]) -> str:
    """Hash a config that was resolved as a whole."""
    total = sum(digest(path, value) for path, value in leaves(resolve(options)).items())
    return f"{total % 2**256:064x}"[:16]


def test_leaves_have_paths():
    config = {"a": {"b": [1, 2], "c": [{"d": None}, {"e": {}}]}, "f": "g"}
    assert leaves(config) == {"a.b": [1, 2], "a.c.0.d": None, "a.c.1.e": {}, "f": "g"}


AXES = {
    "independent": grid(lr=[1, 2, 3], p=[None, 0.1], seed_everything=[0, 1]),
    "zipped": [[{"lr": 1, "p": 0.5}, {"lr": 2, "p": 0.7}], *grid(seed_everything=[4, 5, 6])],
    "a-class-and-a-number": grid(net=["MLP", "ResNet"], lr=[1, 2]),
    "a-class-and-its-option": [[{"net": "MLP"}], *grid(net__widths=[[5], [6]], lr=[0, 1])],
    "nothing-varied": [],
}


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_cells_equal_configs_resolved_one_by_one(axes):
    found = resolve_cells(sweep(*axes), resolve)
    expected = [{n: v for point in points for n, v in point.items()} for points in product(*axes)]
    assert [cell.options for cell in found.cells] == expected
    assert [cell.name for cell in found.cells] == [whole_hash(options) for options in expected]
    for cell, options in zip(found.cells, expected):
        whole = {path: value for path, value in {**found.first, **cell.changes}.items() if value is not None}
        assert whole == {path: value for path, value in leaves(resolve(options)).items() if value is not None}


def test_axes_that_change_the_same_path_are_resolved_together():
    calls = []

    def counted(options):
        calls.append(options)
        return {"both": options["a"] + options["b"], "c": options["c"]}

    found = resolve_cells(sweep(*grid(a=[0, 10], b=[0, 1], c=[5, 6])), counted)
    assert [cell.changes.get("both", found.first["both"]) for cell in found.cells[::2]] == [0, 1, 10, 11]


def test_few_configs_are_resolved_for_many_cells():
    calls = []

    def counted(options):
        calls.append(options)
        return resolve(options)

    found = resolve_cells(sweep(*grid(lr=range(30), p=range(20), seed_everything=range(10))), counted)
    assert len(found.cells) == 6_000
    assert len(calls) == 1 + 29 + 19 + 9


def test_hash_does_not_depend_on_the_rest_of_the_sweep():
    small = resolve_cells(sweep(*grid(lr=[2], seed_everything=[1])), resolve).cells[0]
    large = resolve_cells(sweep(*grid(seed_everything=[3, 1], p=[None, 0.3], lr=[7, 2])), resolve).cells
    assert [cell.options for cell in large if cell.name == small.name] == [{"seed_everything": 1, "p": None, "lr": 2}]


def test_integers_hash_like_equal_floats():
    """The type that ``int | float`` is parsed into depends on the order of imports."""
    assert digest("a", [2, {"b": 0}]) == digest("a", [2.0, {"b": 0.0}])
    assert digest("a", 0.5) != digest("a", 0)


def test_two_cells_of_the_same_run_are_refused():
    with pytest.raises(ValueError, match="are the same run"):
        resolve_cells(sweep(*grid(lr=[1, 1.0])), resolve)  # 1 == 1.0


def test_options_refused_by_the_parser_are_refused():
    with pytest.raises(ValueError, match="ResNet has no option widths"):
        resolve_cells(sweep(*grid(net=["MLP", "ResNet"], net__widths=[[5], [6]])), resolve)
