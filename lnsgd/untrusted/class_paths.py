"""Which classes a config may name that the user did not write: naming one imports its module, which runs it."""

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

# Packages of which importing a module does nothing else. Of torch only these: others load and run files.
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
    """Refuses whatever would make the parser of configs import or call something that is not known to be harmless.

    The parser takes class paths not only where ``class_path`` stands: a text may be one, may be YAML that holds one,
    or name a file that does.

    Args:
        content: Plain values, of a file.
        trusted: Packages that the user trusts besides `ALLOWED`, such as ``mypackage``.

    Raises:
        UnreadableError: it names a class elsewhere, or something else than a class of these packages.
    """
    allowed = (*ALLOWED, *trusted)
    for text in _texts(content):
        if _names_file(text):
            raise UnreadableError(f"it has the name of a file, {text!r:.60}, in place of a value; write what is in it")
        for read in _as_read(text):
            if _IMPORT_PATH.fullmatch(read):
                _check_import(read, allowed)


def _check_import(path: str, allowed: Collection[str]) -> None:
    top = path.partition(".")[0]
    if not _within(path, allowed):
        # What cannot be imported is no class path: a file's name, or that of a layer.
        if top in sys.modules or importlib.util.find_spec(top) is not None:
            raise UnreadableError(
                f"it names {path}, and to import {top} runs its code; if you trust it, say so with --trust {top}"
            )
        return
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return  # the parser says so, and what is wrong with it
    if inspect.ismodule(found):
        return
    home = getattr(found, "__module__", None) or ""
    if not inspect.isclass(found) or not _within(home, allowed):
        raise UnreadableError(f"it names {path}, which is no class of {', '.join(allowed)}")


def _within(path: str, packages: Collection[str]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def _texts(content: Any) -> Iterator[str]:
    below = [content]
    while below:
        value = below.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            below += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            below += value


def _as_read(text: str) -> Iterator[str]:
    """A text, and what it says where it is read as YAML once or several times: ``'"a.B"'`` is ``a.B`` in the end.

    Raises:
        UnreadableError: it says anything but one text, number or the like.
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
            raise UnreadableError(f"it has the text {text!r:.60} in place of a value; write the value itself")
        text = node.value


def _names_file(text: str) -> bool:
    try:
        path = Path(text)
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):  # too long for a name, or with a zero in it
        return False
