"""Logs how many neurons fire."""

from torch import Tensor

from lnsgd import measures
from lnsgd.callbacks.activations import ActivationCallback
from lnsgd.callbacks.measure import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class ActiveNeurons(ActivationCallback[measures.ActiveNeurons]):
    """Logs the typical number of active neurons of every activation site, see `lnsgd.measures.ActiveNeurons`.

    Logs ``active_count/<split>/<layer>`` and ``active_fraction/<split>/<layer>``. For its arguments
    see `lnsgd.callbacks.activations.ActivationCallback`.
    """

    headline = ("active_fraction", "active")

    def new_metric(self, subject: Subject, num_units: int) -> measures.ActiveNeurons:
        """An empty metric for one site."""
        return measures.ActiveNeurons(num_units, sync_on_compute=False)

    def update(self, metric: measures.ActiveNeurons, preactivations: Tensor, labels: Tensor) -> None:
        """Adds a batch to a site's metric."""
        metric.update(preactivations)

    def measurements(self, metric: measures.ActiveNeurons, split: Split, layer: str) -> list[Measurement]:
        """Count and fraction of one site."""
        active = metric.compute()
        return [
            Measurement("active_count", split, layer, active.count),
            Measurement("active_fraction", split, layer, active.fraction),
        ]
