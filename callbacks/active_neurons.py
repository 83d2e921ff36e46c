"""Logs how many neurons fire."""

from pytorch_lightning import LightningModule, Trainer

from lnsgd.callbacks import firing_histograms, pictures
from lnsgd.callbacks.activations import ActivationCallback
from lnsgd.callbacks.measure import subjects
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.measures import Firings
from lnsgd.measures.active_neurons import active_count


class ActiveNeurons(ActivationCallback):
    """Logs the typical number of active neurons of every activation site, see `lnsgd.measures.ActiveNeurons`.

    Logs ``active_count/<split>/<layer>`` and ``active_fraction/<split>/<layer>``. Loggers that take
    histograms get ``firing_rate/<split>/<layer>`` too, how often each neuron fires; of replicas that differ in nothing
    but the seed, that of the first. For its arguments see `lnsgd.callbacks.activations.ActivationCallback`.
    """

    headline = ("active_fraction", "active")

    def measurements(self, firings: Firings, split: Split, layer: str) -> list[Measurement]:
        """Count and fraction of one site."""
        active = active_count(firings.fired.sum(0), firings.examples.sum())
        return [
            Measurement("active_count", split, layer, active.count),
            Measurement("active_fraction", split, layer, active.fraction),
        ]

    def _measure_all(self, trainer: Trainer, module: LightningModule) -> dict[int, list[Measurement]]:
        """Measurements by replica; histograms are made of the firings that were found for them."""
        measured = super()._measure_all(trainer, module)
        if firing_histograms.wanted(trainer):
            drawn = set(pictures.drawn(module)) & measured.keys()
            shown = [subject for subject in subjects(trainer, module) if subject.replica in drawn]
            for split in self.splits:
                found = {subject.replica: self.firings(trainer, subject, split) for subject in shown}
                firing_histograms.send(trainer, module, split, found, trainer.global_step)
        return measured
