"""Check which classes an untrusted config names: naming a class imports its module, which executes it."""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from lnsgd.untrusted.files import UnreadableError

# Packages whose modules may be imported without side effects. Other parts of torch load and execute files.
ALLOWED = (
    "lnsgd",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
    "torchvision.models",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
)

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def check_class_paths(content: Any, trusted: Collection[str] = ()) -> None:
    """Refuse content that would make the parser of configs import or call anything that is not known to be harmless.

    The parser accepts class paths not only as ``class_path``: any text may be one, may be YAML that contains one, or
    may name a file that does.

    Args:
        content: Plain values, from a file.
        trusted: Packages that the user trusts besides `ALLOWED`, such as ``mypackage``.

    Raises:
        UnreadableError: It names a class of another package, or an object that is not a class.
    """
    allowed = (*ALLOWED, *trusted)
    for text in _texts(content):
        if _names_file(text):
            raise UnreadableError(f"it has the name of a file, {text!r:.60}, instead of a value; write its content")
        for read in _readings(text):
            if _IMPORT_PATH.fullmatch(read):
                _check_import(read, allowed)


def _check_import(path: str, allowed: Collection[str]) -> None:
    top = path.partition(".")[0]
    if not _is_within(path, allowed):
        # A text that cannot be imported is not a class path, but the name of a file or a layer.
        if top in sys.modules or importlib.util.find_spec(top) is not None:
            raise UnreadableError(
                f"it names {path}, and importing {top} executes its code; if you trust it, pass --trust {top}"
            )
        return
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return  # the parser reports it
    if inspect.ismodule(found):
        return
    home = getattr(found, "__module__", None) or ""
    if not inspect.isclass(found) or not _is_within(home, allowed):
        raise UnreadableError(f"it names {path}, which is not a class of {', '.join(allowed)}")


def _is_within(path: str, packages: Collection[str]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def _texts(content: Any) -> Iterator[str]:
    stack = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            stack += value


def _readings(text: str) -> Iterator[str]:
    """Yield a text, and what it becomes when it is read as YAML repeatedly: ``'"a.B"'`` becomes ``a.B``.

    Raises:
        UnreadableError: It contains anything except one text, number or other scalar.
    """
    before = None
    while text != before:
        before = text
        yield text
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            return
        except RecursionError:
            node = yaml.SequenceNode("", [])
        if node is None:
            return
        if not isinstance(node, yaml.ScalarNode):
            raise UnreadableError(f"it has the text {text!r:.60} instead of a value; write the value itself")
        text = node.value


def _names_file(text: str) -> bool:
    try:
        path = Path(text)
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False
