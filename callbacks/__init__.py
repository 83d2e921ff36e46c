"""Callbacks: when a measure runs, and where its numbers go. They compute nothing themselves."""

from lnsgd.callbacks.active_neurons import ActiveNeurons
from lnsgd.callbacks.class_association import ClassAssociation
from lnsgd.callbacks.cluster_count import ClusterCount
from lnsgd.callbacks.curve_shape import CurveShape
from lnsgd.callbacks.dead_neurons import DeadNeurons
from lnsgd.callbacks.distance_from_init import DistanceFromInit
from lnsgd.callbacks.finite_guard import FiniteGuard
from lnsgd.callbacks.gradient_norm import GradientNorm
from lnsgd.callbacks.hessian_trace import HessianTrace
from lnsgd.callbacks.hidden_units import HiddenUnits
from lnsgd.callbacks.implicit_regularizer import ImplicitRegularizer
from lnsgd.callbacks.largest_output import LargestOutput
from lnsgd.callbacks.margin import Margin
from lnsgd.callbacks.measurements import Measurement
from lnsgd.callbacks.performance import Performance
from lnsgd.callbacks.recovery_error import RecoveryError
from lnsgd.callbacks.sharpness import Sharpness
from lnsgd.callbacks.singular_values import SingularValues
from lnsgd.callbacks.spectral_density import SpectralDensity
from lnsgd.callbacks.step_progress_bar import StepProgressBar
from lnsgd.callbacks.stop_at_loss import StopAtLoss
from lnsgd.callbacks.stop_at_margin import StopAtMargin
from lnsgd.callbacks.stop_at_zero_error import StopAtZeroError
from lnsgd.callbacks.stop_on_signal import StopOnSignal
from lnsgd.callbacks.top_eigenvalues import TopEigenvalues
from lnsgd.callbacks.watch_processes import WatchProcesses
from lnsgd.callbacks.weight_norms import WeightNorms

__all__ = [
    "ActiveNeurons",
    "ClassAssociation",
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
