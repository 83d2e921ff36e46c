"""Read YAML and JSON files from anyone: plain values of a limited size, without repeated names."""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lnsgd.untrusted.files import UnreadableError, size_of

# The largest files; those that people and lnsgd write are far smaller.
_MAX_YAML, _MAX_JSON = 512 << 10, 256 << 20

# The most values, counted at each alias, and the deepest nesting.
_MAX_VALUES, _MAX_DEPTH = 200_000, 50


# A number with a point or an exponent, as YAML 1.2 and JSON write it: PyYAML reads YAML 1.1, where 1e-1 is a text.
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$")


def load_yaml(path: Path) -> Any:
    """Read the plain values of a YAML file; see `read_yaml`.

    Raises:
        UnreadableError: The file is not YAML in UTF-8, is larger than any config, has a tag that asks for an object,
            repeats a name, or nests values too deeply.
        OSError: The file cannot be opened.
    """
    size_of(path, _MAX_YAML)
    try:
        return read_yaml(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UnreadableError(f"it is not text in UTF-8 ({error.reason} at byte {error.start})") from error


def read_yaml(text: str) -> Any:
    """Read the plain values of a YAML text.

    Aliases are allowed if the values they stand for are not too many, and if no value contains itself. ``1e-1`` is a
    number, as in YAML 1.2 and in the options of the command.

    Example:
        >>> read_yaml("[1e-1, 1E3, .5e1, 2, '1e-1', 1e]")
        [0.1, 1000.0, 5.0, 2, '1e-1', '1e']

    Raises:
        UnreadableError: The text is not YAML, has a tag that asks for an object, repeats a name, or nests values too
            deeply.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (it is a SafeLoader)
    except UnreadableError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError) as error:
        raise UnreadableError(" ".join(str(error).split())[:200]) from error


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UnreadableError: The file is not JSON in UTF-8, is nested too deeply, or is too large.
        OSError: The file cannot be opened.
    """
    size_of(path, _MAX_JSON)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(" ".join(str(error).split())[:160]) from error


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses small files that stand for large values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse values that are nested deeper than Python's stack allows."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableError(f"it has values nested deeper than {_MAX_DEPTH}")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """Refuse values that aliases make large or endless, before any value is made."""
        node = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a name that is given twice, of which the last value would count silently."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in set(names) if name != "<<" and names.count(name) > 1), None):
            raise UnreadableError(f"it has {twice!r:.80} twice; remove one")
        return super().construct_mapping(node, deep)


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values in a node, those of aliases each time."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if (number := known.get(id(node))) is not None:
        if number == 0:  # being counted
            raise UnreadableError("it has a value that contains itself")
        return number
    known[id(node)] = 0
    parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    number = 1
    for part in parts:
        number += _count_values(part, known)
        if number > _MAX_VALUES:
            raise UnreadableError(f"it has more than {_MAX_VALUES:,} values with its aliases expanded")
    known[id(node)] = number
    return number


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
