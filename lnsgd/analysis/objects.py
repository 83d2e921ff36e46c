"""Models, data, losses and measures from the command line: named there, with their arguments."""

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
from lnsgd.analysis.measuring import Measure
from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.callbacks.spectral_density import SpectralDensity
from lnsgd.losses import Loss
from lnsgd.messages import one_line

# Where names without a path are found.
_ROOMS = {
    "model": "lnsgd.models",
    "data": "lnsgd.data",
    "loss": "lnsgd.losses",
    "measures": "lnsgd.callbacks",
}

# What they must be.
_KINDS: dict[str, tuple[type, ...]] = {
    "model": (nn.Module,),
    "data": (LightningDataModule,),
    "loss": (Loss, nn.Module),
    "measures": (MeasureCallback, SpectralDensity),
}

# A list of measures may begin with this, for those that are taken by default.
_DEFAULT = "default"


def split_off(args: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Arguments of objects (``--model.width 8``, ``--model.width=8``) apart from the others, by the object's option."""
    others: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in _ROOMS}
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        name = arg.removeprefix("--").partition(".")[0]
        if not arg.startswith("--") or "." not in arg.partition("=")[0] or name not in own:
            others.append(arg)
        elif "=" in arg:
            own[name].append(arg)
        elif rest:
            own[name] += [arg, rest.pop(0)]
        else:
            raise ValueError(f"{arg}: its value is missing")
    return others, own


def build_model(path: str, args: Sequence[str]) -> nn.Module:
    """What a class or a function gives that is named by its import path.

    Raises:
        ValueError: there is no such thing, it takes other arguments, or it gives no module.
    """
    with rng.forked(0, "init"):
        return _checked("model", path, _build("model", path, args))


def build_data(path: str, args: Sequence[str]) -> LightningDataModule:
    """A DataModule. Raises ValueError as `build_model` does."""
    return _checked("data", path, _build("data", path, args))


def build_loss(path: str, args: Sequence[str]) -> Callable[..., Any]:
    """A per-example loss: an object of a class, or a function itself. Raises ValueError as `build_model` does."""
    found = _resolve("loss", path)
    if not inspect.isclass(found) and not args:
        return found
    return _build("loss", path, args)


def build_measures(listed: str, args: Sequence[str]) -> tuple[list[Measure], bool]:
    """Measuring callbacks, and whether what is taken by default is taken besides.

    Args:
        listed: ``ActiveNeurons,HessianTrace``; or a YAML list of names and of class paths with ``init_args``. The name
            ``default`` stands for all that are taken by default.
        args: Such as ``--measures.HessianTrace.rtol=0.01``.

    Raises:
        ValueError: an unknown measure, or an argument that it does not take.
    """
    chosen: list[Measure] = []
    own, entries = _by_measure(args), _entries(listed)
    for path, settings in entries:
        if path == _DEFAULT:
            continue
        name = path.rpartition(".")[2]
        built = _build("measures", path, [*settings, *own.pop(name, [])], name)
        if not isinstance(built, MeasureCallback | SpectralDensity):
            raise ValueError(f"--measures {path}: it measures nothing; choose of {', '.join(_classes('measures'))}")
        chosen.append(built)
    if own:
        name = next(iter(own))
        raise ValueError(f"--measures.{name}: {name} is not among the measures; name it: --measures {name}")
    return chosen, any(path == _DEFAULT for path, _ in entries)


def _entries(listed: str) -> list[tuple[str, list[str]]]:
    """Names and arguments of measures."""
    if not listed.lstrip().startswith("["):
        return [(name.strip(), []) for name in listed.split(",") if name.strip()]
    try:
        read: list[Any] = yaml.safe_load(listed)
        entries: list[dict[str, Any]] = [{"class_path": one} if isinstance(one, str) else dict(one) for one in read]
        return [(one["class_path"], _written(one["class_path"], one.get("init_args", {}))) for one in entries]
    except (yaml.YAMLError, TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"--measures {listed}: it is no list of names, or of class_path with init_args ({one_line(error)})"
        ) from error


def _written(path: str, settings: Mapping[str, Any]) -> list[str]:
    name = path.rpartition(".")[2]
    return [f"--{name}.{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in settings.items()]


def _by_measure(args: Sequence[str]) -> dict[str, list[str]]:
    """``--measures.Name.key value`` as ``--Name.key value``, by name."""
    found: dict[str, list[str]] = {}
    rest = list(args)
    while rest:
        option = rest.pop(0)
        name, _, setting = option.removeprefix("--measures.").partition(".")
        if not setting:
            raise ValueError(f"{option}: say of which measure, such as --measures.HessianTrace.rtol 0.01")
        found.setdefault(name, []).append(f"--{name}.{setting}")
        if "=" not in option:
            found[name].append(rest.pop(0))
    return found


def _classes(option: str) -> dict[str, type]:
    """What may be named without a path."""
    room = importlib.import_module(_ROOMS[option])
    found = {name: kind for name, kind in vars(room).items() if inspect.isclass(kind) and not inspect.isabstract(kind)}
    return {name: kind for name, kind in found.items() if issubclass(kind, _KINDS[option])}


def _resolve(option: str, path: str) -> Any:
    """A class or function by its import path, or by its name in the room where it is looked for."""
    module, _, name = path.rpartition(".")
    if not module:
        known = _classes(option)
        if name in known:
            return known[name]
        raise ValueError(f"--{option} {path} is unknown; choose of {', '.join(known)}, or give an import path")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--{option} {path} cannot be imported ({one_line(error)}); give package.module.Name"
        ) from error
    if not callable(found):
        raise ValueError(f"--{option} {path} is a {type(found).__name__}, no class or function")
    return found


def _build(option: str, path: str, args: Sequence[str], name: str | None = None) -> Any:
    """Calls a class or function with the arguments ``--<name>.<key>``, which its signature says the types of."""
    name = name or option
    what = _resolve(option, path)
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(what) else parser.add_function_arguments
    accepted = [key.split(".")[1] for key in add(what, name, fail_untyped=False)]
    for arg in args:
        key = arg.partition("=")[0].removeprefix(f"--{name}.").split(".")[0]
        if arg.startswith(f"--{name}.") and key not in accepted:
            raise ValueError(f"--{option}: {path} takes no {key!r}; it takes {', '.join(accepted) or 'nothing'}")
    try:
        given = parser.parse_args(list(args))
        made = parser.instantiate(given)
        if inspect.isclass(what) and accepted:
            return made[name]
        return what(**(made[name].as_dict() if accepted else {}))
    except ArgumentError as error:
        raise ValueError(f"--{option}: {one_line(error)}") from error
    except TypeError as error:
        raise ValueError(f"--{option} {path}: {one_line(error)}; it takes {', '.join(accepted)}") from error


def _checked(option: str, path: str, made: Any) -> Any:
    if not isinstance(made, _KINDS[option]):
        raise ValueError(f"--{option} {path} gives a {type(made).__name__}, no {_KINDS[option][0].__name__}")
    return made
