"""Callbacks: when a measure is taken and where its numbers go; stopping rules and guards."""

from lnsgd.callbacks.guards.finite_guard import FiniteGuard
from lnsgd.callbacks.guards.stop_on_signal import StopOnSignal
from lnsgd.callbacks.guards.watch_processes import WatchProcesses
from lnsgd.callbacks.measures.curvature import (
    GradientNorm,
    HessianTrace,
    ImplicitRegularizer,
    SpectralDensity,
    TopEigenvalues,
)
from lnsgd.callbacks.measures.neurons import ActiveNeurons, ClassAssociation, DeadNeurons, HiddenUnits
from lnsgd.callbacks.measures.outputs import ClassVariance, LargestOutput, Margin, Performance
from lnsgd.callbacks.measures.special_networks import CurveShape, RecoveryError, Sharpness
from lnsgd.callbacks.measures.weights import ClusterCount, DistanceFromInit, SingularValues, WeightNorms
from lnsgd.callbacks.progress_bar import MeasureProgressBar
from lnsgd.callbacks.step_progress_bar import StepProgressBar
from lnsgd.callbacks.stopping.rules import StopAtLoss, StopAtMargin, StopAtZeroError
from lnsgd.measuring import Measurement

__all__ = [
    "ActiveNeurons",
    "ClassAssociation",
    "ClassVariance",
    "ClusterCount",
    "CurveShape",
    "DeadNeurons",
    "DistanceFromInit",
    "FiniteGuard",
    "GradientNorm",
    "HessianTrace",
    "HiddenUnits",
    "ImplicitRegularizer",
    "LargestOutput",
    "Margin",
    "MeasureProgressBar",
    "Measurement",
    "Performance",
    "RecoveryError",
    "Sharpness",
    "SingularValues",
    "SpectralDensity",
    "StepProgressBar",
    "StopAtLoss",
    "StopAtMargin",
    "StopAtZeroError",
    "StopOnSignal",
    "TopEigenvalues",
    "WatchProcesses",
    "WeightNorms",
]
