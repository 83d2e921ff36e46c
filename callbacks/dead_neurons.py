"""Logs how many neurons never fire."""

from torch import Tensor

from lnsgd import measures
from lnsgd.callbacks.activations import ActivationCallback
from lnsgd.callbacks.measure import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class DeadNeurons(ActivationCallback[measures.DeadNeurons]):
    """Logs ``dead_count/<split>/<layer>`` and ``dead_fraction/<split>/<layer>``, see `lnsgd.measures.DeadNeurons`.

    For its arguments see `lnsgd.callbacks.activations.ActivationCallback`.
    """

    headline = ("dead_count", "dead")

    def new_metric(self, subject: Subject, num_units: int) -> measures.DeadNeurons:
        """An empty metric for one site."""
        return measures.DeadNeurons(num_units, sync_on_compute=False)

    def update(self, metric: measures.DeadNeurons, preactivations: Tensor, labels: Tensor) -> None:
        """Adds a batch to a site's metric."""
        metric.update(preactivations)

    def measurements(self, metric: measures.DeadNeurons, split: Split, layer: str) -> list[Measurement]:
        """Count and fraction of one site."""
        count = metric.compute().item()
        return [
            Measurement("dead_count", split, layer, count),
            Measurement("dead_fraction", split, layer, count / len(metric.fired)),
        ]
