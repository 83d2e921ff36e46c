"""LightningModules: a model with a loss, a label noise and an optimizer."""

from lnsgd.modules.classifier import Classifier

__all__ = ["Classifier"]
