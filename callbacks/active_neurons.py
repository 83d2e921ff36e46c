"""Logs how many neurons fire."""

from lnsgd.callbacks.activations import ActivationCallback
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.measures import Firings
from lnsgd.measures.active_neurons import active_count


class ActiveNeurons(ActivationCallback):
    """Logs the typical number of active neurons of every activation site, see `lnsgd.measures.ActiveNeurons`.

    Logs ``active_count/<split>/<layer>`` and ``active_fraction/<split>/<layer>``. For its arguments
    see `lnsgd.callbacks.activations.ActivationCallback`.
    """

    headline = ("active_fraction", "active")

    def measurements(self, firings: Firings, split: Split, layer: str) -> list[Measurement]:
        """Count and fraction of one site."""
        active = active_count(firings.fired.sum(0), firings.examples.sum())
        return [
            Measurement("active_count", split, layer, active.count),
            Measurement("active_fraction", split, layer, active.fraction),
        ]
