"""Base classes of the measuring callbacks."""

from lnsgd.callbacks.base.activations import ActivationCallback
from lnsgd.callbacks.base.final_tensors import FinalTensors, LimitedFinalTensors
from lnsgd.callbacks.base.measuring import MeasuringCallback, WithData
from lnsgd.callbacks.base.scheduled import DataCallback, LimitedCallback, MeasureCallback

__all__ = [
    "ActivationCallback",
    "DataCallback",
    "FinalTensors",
    "LimitedCallback",
    "LimitedFinalTensors",
    "MeasureCallback",
    "MeasuringCallback",
    "WithData",
]
