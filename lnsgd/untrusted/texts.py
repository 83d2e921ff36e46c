"""YAML and JSON files of anyone: plain values of a bounded size, each name once."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lnsgd.untrusted.files import UnreadableError, size_of

# What people and lnsgd write is far below.
_MOST_YAML, _MOST_JSON = 512 << 10, 256 << 20

# Values, each as often as it is referred to by an alias, and how deep they may be nested.
_MOST_VALUES, _MOST_DEPTH = 200_000, 50


def load_yaml(path: Path) -> Any:
    """What a YAML file says: plain values only.

    Aliases are allowed, but not to more than they would take written out, and never to what they are in themselves.

    Raises:
        UnreadableError: it is no YAML in UTF-8, is larger than a config is, has a tag that asks for an object, a name
            twice, or values nested in each other too deep.
        OSError: it cannot be opened.
    """
    size_of(path, _MOST_YAML)
    content = path.read_bytes()
    try:
        return yaml.load(content.decode("utf-8"), Loader=_Loader)  # noqa: S506 (it is a SafeLoader)
    except UnicodeDecodeError as error:
        raise UnreadableError(f"it is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    except UnreadableError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError) as error:
        raise UnreadableError(" ".join(str(error).split())[:200]) from error


def load_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        UnreadableError: it is no JSON in UTF-8, or is nested too deep or too large.
        OSError: it cannot be opened.
    """
    size_of(path, _MOST_JSON)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(" ".join(str(error).split())[:160]) from error


class _Loader(yaml.SafeLoader):
    """Plain values, as SafeLoader makes them; stricter where that lets a small file stand for much."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuses what is nested deeper than Python's own stack would bear."""
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise UnreadableError(f"it has values nested deeper than {_MOST_DEPTH}")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """Refuses what aliases make large or endless, before anything is made of it."""
        node = super().get_single_node()
        if node is not None:
            _weigh(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses a name that is there twice, of which the last would count silently."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in set(names) if name != "<<" and names.count(name) > 1), None):
            raise UnreadableError(f"it has {twice!r:.80} twice; leave one")
        return super().construct_mapping(node, deep)


def _weigh(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values in a node, those behind aliases every time."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if (weight := known.get(id(node))) is not None:
        if weight == 0:  # being weighed
            raise UnreadableError("it has a value that holds itself")
        return weight
    known[id(node)] = 0
    parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    weight = 1
    for part in parts:
        weight += _weigh(part, known)
        if weight > _MOST_VALUES:
            raise UnreadableError(f"it has more than {_MOST_VALUES:,} values, its aliases written out")
    known[id(node)] = weight
    return weight
