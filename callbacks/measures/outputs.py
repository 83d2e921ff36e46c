"""Callbacks that measure outputs and the features before them."""

from lnsgd.callbacks.base import DataCallback
from lnsgd.measuring import ClassVarianceMeasurer, LargestOutputMeasurer, MarginMeasurer, PerformanceMeasurer


class Performance(PerformanceMeasurer, DataCallback):
    """Log ``loss/<split>`` and, for class labels, ``error/<split>`` on clean labels.

    Unlike Lightning's validation, it can do so after given steps. For the arguments see
    `lnsgd.measuring.PerformanceMeasurer`.
    """


class Margin(MarginMeasurer, DataCallback):
    """Log ``margin_fraction/<split>`` and ``margin_median/<split>``, see `lnsgd.measures.margins`.

    For the arguments see `lnsgd.measuring.MarginMeasurer`.
    """


class LargestOutput(LargestOutputMeasurer, DataCallback):
    """Log ``largest_output/<split>``, how far outputs are from zero.

    For the arguments see `lnsgd.measuring.LargestOutputMeasurer`.
    """


class ClassVariance(ClassVarianceMeasurer, DataCallback):
    """Log ``class_variance_ratio/<split>/<layer>``, how tightly the features of each class lie together.

    For the arguments see `lnsgd.measuring.ClassVarianceMeasurer`.
    """
