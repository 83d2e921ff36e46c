"""Models, data, losses and measurers that are named on the command line, with their arguments."""

import importlib
import inspect
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningDataModule
from torch import nn

from lnsgd import rng
from lnsgd.analysis.measurers import Selection
from lnsgd.analysis.options import ROOMS
from lnsgd.console.messages import did_you_mean, one_line
from lnsgd.losses import Loss
from lnsgd.measuring import Measurer
from lnsgd.untrusted.texts import read_yaml

# The classes that the objects must be instances of.
_KINDS: dict[str, tuple[type, ...]] = {
    "model": (nn.Module,),
    "data": (LightningDataModule,),
    "loss": (Loss, nn.Module),
    "measures": (Measurer,),
}

# This name in a list of measures stands for the default measures.
_DEFAULT = "default"


def build_model(path: str, args: Sequence[str]) -> nn.Module:
    """Build a network by a class or function that is named by its import path.

    Raises:
        ValueError: the name is unknown, the arguments are wrong, or the result is not a module.
    """
    with rng.forked(0, "init"):
        return _checked("model", path, _build("model", path, args))


def build_data(path: str, args: Sequence[str]) -> LightningDataModule:
    """Build a DataModule. Raises ValueError as `build_model` does."""
    return _checked("data", path, _build("data", path, args))


def build_loss(path: str, args: Sequence[str]) -> Callable[..., Any]:
    """Build a per-example loss from a class, or return a function. Raises ValueError as `build_model` does."""
    found = _resolve("loss", path)
    if not inspect.isclass(found) and not args:
        return found
    return _build("loss", path, args)


def build_measurers(listed: str, args: Sequence[str]) -> Selection:
    """Build the measurers that are asked for.

    Args:
        listed: Names, such as ``ActiveNeurons,HessianTrace``, or a YAML list of names and of class paths with
            ``init_args``. The name ``default`` stands for the default measures.
        args: Arguments, such as ``--measures.HessianTrace.rtol=0.01``.

    Raises:
        ValueError: a measure is unknown, or does not take an argument.
    """
    asked: list[Measurer] = []
    own, entries = _by_measure(args), _entries(listed)
    for path, settings in entries:
        if path == _DEFAULT:
            continue
        name = path.rpartition(".")[2]
        built = _build("measures", path, [*settings, *own.pop(name, [])], name)
        if not isinstance(built, Measurer):
            raise ValueError(f"--measures {path} does not measure; choose one of {', '.join(_classes('measures'))}")
        asked.append(built)
    if own:
        name = next(iter(own))
        raise ValueError(f"--measures.{name}: {name} is not among the measures; name it: --measures {name}")
    return Selection(asked, with_defaults=any(path == _DEFAULT for path, _ in entries))


def _entries(listed: str) -> list[tuple[str, list[str]]]:
    """Return the names and arguments in a list of measures."""
    if not listed.lstrip().startswith("["):
        return [(name.strip(), []) for name in listed.split(",") if name.strip()]
    try:
        read: list[Any] = read_yaml(listed)
        entries: list[dict[str, Any]] = [{"class_path": one} if isinstance(one, str) else dict(one) for one in read]
        return [(one["class_path"], _written(one["class_path"], one.get("init_args", {}))) for one in entries]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"--measures {listed}: this is not a list of names, or of class_path with init_args ({one_line(error)})"
        ) from error


def _written(path: str, settings: Mapping[str, Any]) -> list[str]:
    name = path.rpartition(".")[2]
    return [f"--{name}.{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in settings.items()]


def _by_measure(args: Sequence[str]) -> dict[str, list[str]]:
    """Return ``--measures.Name.key value`` as ``--Name.key value``, by name."""
    found: dict[str, list[str]] = {}
    rest = list(args)
    while rest:
        option = rest.pop(0)
        name, _, setting = option.removeprefix("--measures.").partition(".")
        if not setting:
            raise ValueError(f"{option} does not name a measure; write it such as --measures.HessianTrace.rtol 0.01")
        found.setdefault(name, []).append(f"--{name}.{setting}")
        if "=" not in option:
            found[name].append(rest.pop(0))
    return found


def _classes(option: str) -> dict[str, type]:
    """Return the classes that may be named without a path; measurers have short names, as their callbacks do."""
    room = importlib.import_module(ROOMS[option])
    found = {name: kind for name, kind in vars(room).items() if inspect.isclass(kind) and not inspect.isabstract(kind)}
    return {name.removesuffix("Measurer"): kind for name, kind in found.items() if issubclass(kind, _KINDS[option])}


def _resolve(option: str, path: str) -> Any:
    """Return a class or function by its import path, or by its name in the package of the option."""
    module, _, name = path.rpartition(".")
    if not module:
        known = _classes(option)
        if name in known:
            return known[name]
        hint = did_you_mean(path, known)
        raise ValueError(
            f"--{option} {path} is unknown{hint}; choose one of {', '.join(known)}, or give an import path"
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--{option} {path} cannot be imported ({one_line(error)}); give package.module.Name"
        ) from error
    if not callable(found):
        raise ValueError(f"--{option} {path} is a {type(found).__name__}, not a class or function")
    return found


def _build(option: str, path: str, args: Sequence[str], name: str | None = None) -> Any:
    """Call a class or function with the arguments ``--<name>.<key>``, converted to the types in its signature.

    Arguments that only its ``**kwargs`` take, as those of ``timm.create_model``, are read as YAML.
    """
    name = name or option
    what = _resolve(option, path)
    parser = ArgumentParser(exit_on_error=False)
    if inspect.isclass(what):
        added = parser.add_class_arguments(what, name, fail_untyped=False, instantiate=False)
    else:
        added = parser.add_function_arguments(what, name, fail_untyped=False)
    accepted = [key.split(".")[1] for key in added]
    known, further = _separated(name, args, accepted)
    # The further arguments of a measurer are those of a callback, which has none here.
    if further and (option == "measures" or not _takes_any_keyword(what)):
        raise ValueError(
            f"--{option}: {path} takes no {next(iter(further))!r}; it takes {', '.join(accepted) or 'nothing'}"
        )
    try:
        made = parser.instantiate(parser.parse_args(known))
        return what(**(made[name].as_dict() if accepted else {}), **further)
    except ArgumentError as error:
        raise ValueError(f"--{option}: {one_line(error)}") from error
    except TypeError as error:
        raise ValueError(f"--{option} {path}: {one_line(error)}; it takes {', '.join(accepted)}") from error


def _separated(name: str, args: Sequence[str], accepted: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Separate arguments with names in a signature from all others, which are returned by name, read as YAML."""
    known: list[str] = []
    further: dict[str, Any] = {}
    rest = list(args)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        value = value if equals else rest.pop(0)
        key = option.removeprefix(f"--{name}.")
        if key.split(".")[0] in accepted or not option.startswith(f"--{name}."):
            known.append(f"{option}={value}")
        else:
            further[key] = read_yaml(value)
    return known, further


def _takes_any_keyword(what: Callable[..., Any]) -> bool:
    parameters = inspect.signature(what).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _checked(option: str, path: str, made: Any) -> Any:
    if not isinstance(made, _KINDS[option]):
        raise ValueError(f"--{option} {path} gives a {type(made).__name__}, not a {_KINDS[option][0].__name__}")
    return made
