"""Base classes of everything that a Trainer takes, which the Trainers of both Lightnings accept.

Lightning is published under two names, ``pytorch_lightning`` and ``lightning.pytorch``, with the same code and
different classes. A Trainer, a LightningCLI or a Hydra config of one of them refuses, or treats wrongly, objects that
do not derive from its own classes. The classes here derive from those of ``pytorch_lightning``, and also from those of
``lightning.pytorch`` as soon as that package is imported, before or after lnsgd. A program that does not import it does
not load it either. All callbacks, modules, DataModules and loggers of lnsgd derive from the classes here.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from inspect import getattr_static, unwrap
from types import FunctionType, ModuleType
from typing import Any

from pytorch_lightning import callbacks, core, loggers
from pytorch_lightning.plugins import layer_sync

from lnsgd import compat

__all__ = [
    "Callback",
    "Checkpoint",
    "LightningDataModule",
    "LightningModule",
    "Logger",
    "TQDMProgressBar",
    "TorchSyncBatchNorm",
    "WandbLogger",
]


class Callback(callbacks.Callback):
    """A callback for the Trainer of either package."""


class Checkpoint(callbacks.Checkpoint):
    """A callback that saves checkpoints, and is called after all others, for the Trainer of either package."""


class LightningDataModule(core.LightningDataModule):
    """A DataModule for the Trainer of either package.

    Args:
        args: Arguments of Lightning's class.
        kwargs: Arguments of Lightning's class.
    """


class LightningModule(core.LightningModule):
    """A module for the Trainer of either package.

    Args:
        args: Arguments of Lightning's class.
        kwargs: Arguments of Lightning's class.
    """


class Logger(loggers.Logger):
    """A logger for the Trainer of either package."""


class TorchSyncBatchNorm(layer_sync.TorchSyncBatchNorm):
    """A plugin that synchronizes batch normalization, for the Trainer of either package."""


class TQDMProgressBar(callbacks.TQDMProgressBar):
    """A progress bar for the Trainer of either package."""


class WandbLogger(loggers.WandbLogger):
    """Lightning's logger for Weights & Biases, for the Trainer of either package.

    Args:
        kwargs: Further arguments of ``wandb.init``.
    """


class _MethodOfTrainersPackage:
    """A method that is the one of the package whose Trainer the object has.

    Lightning finds out whether a hook is overridden by comparing its code with that of its own class. The code of some
    hooks differs between the packages, in docstrings for the most part, so each must find its own.

    Args:
        name: Name of the method.
        first: Class of ``pytorch_lightning``, also for objects without a Trainer.
        second: Class of ``lightning.pytorch``.
    """

    def __init__(self, name: str, first: type, second: type) -> None:
        self._name, self._first, self._second = name, first, second

    def __get__(self, instance: Any, owner: type) -> Any:
        trainer = None if instance is None else compat.attached_trainer(instance)
        chosen = self._second if trainer is not None and compat.is_of_unified_package(trainer) else self._first
        return getattr_static(chosen, self._name).__get__(instance, owner)


def _derive_from(ours: type, second: type) -> None:
    """Let one of the classes above derive from that of ``lightning.pytorch`` too."""
    first = ours.__bases__[0]
    ours.__bases__ = (first, second)
    if ours not in (LightningModule, LightningDataModule):
        return  # no other class is asked which hooks it overrides
    for name in dir(first):
        methods = [unwrap(getattr_static(base, name, None)) for base in (first, second)]
        functions = [method for method in methods if isinstance(method, FunctionType)]
        if len(functions) == 2 and functions[0].__code__ != functions[1].__code__:
            setattr(ours, name, _MethodOfTrainersPackage(name, first, second))


def _module_of(name: str) -> str:
    """Return the module of ``lightning.pytorch`` that defines the class of a name."""
    first: type = globals()[name].__bases__[0]
    return first.__module__.replace("pytorch_lightning", "lightning.pytorch", 1)


class _AfterImport(MetaPathFinder):
    """Finds the modules of ``lightning.pytorch`` as the other finders do, and acts after each has been executed."""

    def __init__(self, waiting: dict[str, str]) -> None:
        self._waiting = waiting

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Return the spec of another finder, with a loader that acts after execution; ``None`` for other modules."""
        if (name := self._waiting.get(fullname)) is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec: ModuleSpec | None = next(filter(None, (f.find_spec(fullname, path, target) for f in others)), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self._waiting.pop(fullname, None):
                _derive_from(globals()[name], getattr(module, name))
            if not self._waiting and self in sys.meta_path:
                sys.meta_path.remove(self)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _derive_from_unified_package() -> None:
    """Let the classes derive from those of ``lightning.pytorch`` now, or when it is imported."""
    waiting = {}
    for name in __all__:
        if hasattr(module := sys.modules.get(_module_of(name)), name):
            _derive_from(globals()[name], getattr(module, name))
        else:
            waiting[_module_of(name)] = name
    if waiting:
        sys.meta_path.insert(0, _AfterImport(waiting))


_derive_from_unified_package()
