"""LightningModules: a model with a loss, a label noise and an optimizer."""

from lnsgd.modules.classifier import Classifier
from lnsgd.modules.regressor import Regressor
from lnsgd.modules.replicated import ReplicatedModule, Subject
from lnsgd.modules.supervised import SupervisedModule

__all__ = ["Classifier", "Regressor", "ReplicatedModule", "Subject", "SupervisedModule"]
