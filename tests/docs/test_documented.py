"""Every public name has a docstring with a summary and its arguments, and its room is in the reference."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import docstring_parser
import pytest

import lnsgd
from lnsgd.cli import USAGE

DOCS = Path(__file__).parents[2] / "docs"
ROOMS = re.findall(r"^ +(lnsgd\.\S+)$", (DOCS / "api" / "index.md").read_text(), re.MULTILINE)

# What the command is made of, and nobody imports.
OF_THE_COMMAND = {"lnsgd.__main__", "lnsgd.cli", "lnsgd.console"}


def public(room: str) -> dict[str, object]:
    """Return the exports of a room: ``__all__``, or the classes and functions in its file."""
    module = importlib.import_module(room)
    tree = ast.parse(inspect.getsource(module))
    defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    names = getattr(module, "__all__", None) or [name for name in defined if not name.startswith("_")]
    return {name: getattr(module, name) for name in names}


DOCUMENTED = {
    f"{room}.{name}": value
    for room in ROOMS
    for name, value in public(room).items()
    if inspect.isclass(value) or inspect.isfunction(value)  # not the type aliases
}


def described(docstring: str) -> set[str]:
    """Return the names in ``Args`` and ``Attributes``."""
    parsed = docstring_parser.parse(docstring, docstring_parser.DocstringStyle.GOOGLE)
    return {name for entry in parsed.params for name in entry.arg_name.split(", ")}


def docstrings(value: type | object) -> list[str]:
    """Return the docstring of a function; for a class, also the docstring of the class that has its constructor."""
    own = inspect.cleandoc(value.__doc__ or "")
    if not inspect.isclass(value):
        return [own]
    built_by = next(kind for kind in value.__mro__ if "__init__" in vars(kind))
    return [own, inspect.cleandoc(built_by.__doc__ or "")]


def arguments(value: type | object) -> list[str]:
    if inspect.isclass(value) and (issubclass(value, Exception) or getattr(value, "_is_protocol", False)):
        return []
    skipped = ("self", "cls")
    return [name for name in inspect.signature(value).parameters if name not in skipped]


def test_every_room_is_in_the_reference():
    rooms = {f"lnsgd.{module.name}" for module in pkgutil.iter_modules(lnsgd.__path__)} - OF_THE_COMMAND
    assert rooms - set(ROOMS) == set()
    assert len(ROOMS) == len(set(ROOMS))


def test_every_command_is_in_the_reference():
    commands = re.findall(r"^  ([a-z]+) ", USAGE, re.MULTILINE)
    shown = re.findall(r"\{program-output\} lnsgd ([a-z]+) --help", (DOCS / "cli.md").read_text())
    assert len(commands) > 5
    assert list(dict.fromkeys(shown)) == commands


@pytest.mark.parametrize("name", DOCUMENTED)
def test_it_has_a_summary(name):
    first, *rest = inspect.cleandoc(DOCUMENTED[name].__doc__ or "").splitlines() or [""]
    assert first.endswith((".", ":", ")")), f"{name}: the first line is its summary, one sentence: {first!r}"
    assert not rest or not rest[0]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_argument_is_described(name):
    value = DOCUMENTED[name]
    known = set().union(*map(described, docstrings(value)))
    assert [argument for argument in arguments(value) if argument not in known] == []
