"""Callbacks: when a measure runs, and where its numbers go. They compute nothing themselves."""

from lnsgd.callbacks.active_neurons import ActiveNeurons
from lnsgd.callbacks.class_association import ClassAssociation
from lnsgd.callbacks.dead_neurons import DeadNeurons
from lnsgd.callbacks.distance_from_init import DistanceFromInit
from lnsgd.callbacks.hessian_trace import HessianTrace
from lnsgd.callbacks.largest_output import LargestOutput
from lnsgd.callbacks.performance import Performance
from lnsgd.callbacks.step_progress_bar import StepProgressBar
from lnsgd.callbacks.weight_norms import WeightNorms

__all__ = [
    "ActiveNeurons",
    "ClassAssociation",
    "DeadNeurons",
    "DistanceFromInit",
    "HessianTrace",
    "LargestOutput",
    "Performance",
    "StepProgressBar",
    "WeightNorms",
]
