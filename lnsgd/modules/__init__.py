"""LightningModules: a model with a loss, a label noise and an optimizer."""

from importlib import import_module
from typing import Any

from lnsgd.modules.classifier import Classifier
from lnsgd.modules.regressor import Regressor
from lnsgd.modules.supervised import SupervisedModule

__all__ = ["Classifier", "Regressor", "SupervisedModule"]

_MOVED = {"ReplicatedModule": "lnsgd.replicas", "Subject": "lnsgd.measuring"}


def __getattr__(name: str) -> Any:
    """Find a class that has moved to another room under its earlier name."""
    if name in _MOVED:
        return getattr(import_module(_MOVED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
