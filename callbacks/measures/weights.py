"""Callbacks that measure weights: distance from initialization, norms, singular values, clusters of neurons."""

from lnsgd.callbacks.base import DataCallback, MeasureCallback
from lnsgd.measuring import (
    ClusterCountMeasurer,
    DistanceFromInitMeasurer,
    SingularValuesMeasurer,
    WeightNormsMeasurer,
)


class DistanceFromInit(DistanceFromInitMeasurer, MeasureCallback):
    """Log ‖θ − θ₀‖₂ as ``distance_from_init`` and, per tensor, ``distance_from_init/<tensor>``.

    θ₀ (of every replica) is taken before the first step and kept in every checkpoint, so that a resumed run measures
    from the same point. For the arguments see `lnsgd.measuring.DistanceFromInitMeasurer`.

    Raises:
        ValueError: on resume, the checkpoint was written without this callback, so that θ₀ is not known.
    """


class WeightNorms(WeightNormsMeasurer, MeasureCallback):
    """Log ``norm/<tensor>`` of every parameter, and of biases ``bias_mean/<tensor>`` and ``bias_max/<tensor>``.

    For the arguments see `lnsgd.measuring.WeightNormsMeasurer`.
    """


class SingularValues(SingularValuesMeasurer, DataCallback):
    """Log ``singular_value_1``, ``_2``, … and ``effective_rank`` of weight and of feature matrices.

    For the arguments see `lnsgd.measuring.SingularValuesMeasurer`.
    """


class ClusterCount(ClusterCountMeasurer, DataCallback):
    """Log ``cluster_count``, the number of clusters that the neurons of each layer form.

    For the arguments see `lnsgd.measuring.ClusterCountMeasurer`.
    """
