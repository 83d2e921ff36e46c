"""Logs how many different neurons there are."""

from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class ClusterCount(MeasureCallback):
    """Logs ``cluster_count``, the number of clusters of the rows of each trained weight matrix, the neurons.

    See `lnsgd.measures.clusters`: neighbours in a cluster are at most ``tolerance`` apart.

    Args:
        tolerance: Largest Euclidean distance of neighbours, in units of the weights.
        schedule: See `MeasureCallback`.

    Raises:
        ValueError: a negative tolerance.
    """

    headline = ("cluster_count", "clusters")

    def __init__(self, tolerance: float = 0.03, **schedule: Any) -> None:
        super().__init__(**schedule)
        if not tolerance >= 0:
            raise ValueError(f"ClusterCount: tolerance = {tolerance} is negative; it is a distance")
        self.tolerance = tolerance

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "tolerance": self.tolerance}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """One number for each matrix."""
        weights = measures.trainable_parameters(subject.module)
        return [
            Measurement("cluster_count", "", name, measures.cluster_count(weight, self.tolerance))
            for name, weight in weights.items()
            if weight.ndim == 2
        ]
