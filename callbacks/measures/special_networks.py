"""Callbacks that are made for one kind of small network, where a quantity has a closed form."""

from lnsgd.callbacks.base import DataCallback, MeasureCallback
from lnsgd.measuring import CurveShapeMeasurer, RecoveryErrorMeasurer, SharpnessMeasurer


class CurveShape(CurveShapeMeasurer, DataCallback):
    """Log ``curve_length``, ``convexity_changes`` and ``chord_deviation`` of a network with one input.

    For ReLU networks 1-H-1 only, see `lnsgd.measuring.CurveShapeMeasurer`; for the arguments see
    `lnsgd.callbacks.base.DataCallback`.
    """


class Sharpness(SharpnessMeasurer, DataCallback):
    """Log how far a network is from the flattest one that fits the data, such as ``trace/train``.

    For networks Σ_j φ(θ_j·x) only, see `lnsgd.measuring.SharpnessMeasurer`; for the arguments see
    `lnsgd.callbacks.base.DataCallback`.
    """


class RecoveryError(RecoveryErrorMeasurer, MeasureCallback):
    """Log ``recovery_error``, the exact test error of a `MatrixFactorization` on `lnsgd.data.MatrixSensing`.

    For the arguments see `lnsgd.callbacks.base.MeasureCallback`.
    """
