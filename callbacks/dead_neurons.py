"""Logs how many neurons never fire."""

from lnsgd.callbacks.activations import ActivationCallback
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.measures import Firings
from lnsgd.measures.dead_neurons import dead_count


class DeadNeurons(ActivationCallback):
    """Logs ``dead_count/<split>/<layer>`` and ``dead_fraction/<split>/<layer>``, see `lnsgd.measures.DeadNeurons`.

    For its arguments see `lnsgd.callbacks.activations.ActivationCallback`.
    """

    headline = ("dead_count", "dead")

    def measurements(self, firings: Firings, split: Split, layer: str) -> list[Measurement]:
        """Count and fraction of one site."""
        fired = firings.fired.sum(0)
        count = dead_count(fired).item()
        return [
            Measurement("dead_count", split, layer, count),
            Measurement("dead_fraction", split, layer, count / len(fired)),
        ]
