"""Logs how many neurons belong to one class, and draws their firing histograms."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lnsgd.callbacks import pictures
from lnsgd.callbacks.activations import ActivationCallback
from lnsgd.callbacks.firing_passes import passes_of
from lnsgd.callbacks.measure import subjects
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.measures import Firings, associated_class
from lnsgd.measures.class_association import association, firing_rates, plot_histograms
from lnsgd.modules.replicated import Subject
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.checkpoint import save_safetensors
from lnsgd.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ClassAssociation(ActivationCallback):
    """Logs the class-associated neurons of every activation site, see `lnsgd.measures.ClassAssociation`.

    Logs ``associated_count/<split>/<layer>`` and ``associated_fraction/<split>/<layer>``. At the end of
    training it keeps the firings of each site on the first split in ``firings.safetensors``, draws
    their histograms into the run's ``figures/``, and sends those to loggers that take images.

    Args:
        threshold: A neuron belongs to a class for which it fires at least this many times as much.
        rates: Compare rates per example of a class in place of counts.
        num_classes: C; by default what the DataModule's ``num_classes`` or the data set's ``classes`` say, else the
            largest label that is seen in a first look at the data plus one.
        histograms: Number of neurons drawn, 0 for none.
        options: See `ActivationCallback`.

    Raises:
        ValueError: on measuring, labels that are no class indices.
    """

    headline = ("associated_count", "associated")

    def __init__(
        self,
        threshold: float = 2.0,
        rates: bool = False,
        num_classes: int | None = None,
        histograms: int = 30,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.threshold = threshold
        self.rates = rates
        self.num_classes = num_classes
        self.histograms = histograms

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "threshold": self.threshold, "rates": self.rates}

    def classes_needed(self, trainer: Trainer, subject: Subject) -> int:
        """The number of classes C."""
        if self.num_classes is not None:
            return self.num_classes
        return max(self.source.num_classes(trainer, subject, split, self.examples_of(split)) for split in self.splits)

    def measurements(self, firings: Firings, split: Split, layer: str) -> list[Measurement]:
        """Count and fraction of one site."""
        associated = association(self._compared(firings), self.threshold)
        return [
            Measurement("associated_count", split, layer, associated.count),
            Measurement("associated_fraction", split, layer, associated.fraction),
        ]

    def _compared(self, firings: Firings) -> Tensor:
        return firing_rates(firings) if self.rates else firings.fired.double()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the firings of the trained network and draws their histograms."""
        run, split = RunFolder(Path(trainer.log_dir or trainer.default_root_dir)), self.splits[0]
        pl_module.to(trainer.strategy.root_device)  # the Trainer has moved it to the CPU already
        passes_of(trainer).forget()  # a callback may have put other weights in at the end, such as averages
        found = {subject.replica: self.firings(trainer, subject, split) for subject in subjects(trainer, pl_module)}
        pl_module.cpu()
        if not trainer.is_global_zero:
            return
        names = pictures.prefixes(pl_module, found)
        fired = {name + layer: f.fired.cpu() for r, name in names.items() for layer, f in found[r].items()}
        with whole_file(run.firings) as part:
            save_safetensors(fired, part)
        for replica in pictures.drawn(pl_module) if self.histograms else ():
            for layer, firings in found[replica].items():
                name = names[replica] + layer
                figure = self._draw(firings)
                pictures.save(figure, run.figures / f"firing_histograms_{name.replace('/', '_')}.png")
                pictures.send(trainer, f"firing_histograms/{split}/{name}", figure)

    def _draw(self, firings: Firings) -> "Figure":
        shown = self._compared(firings)[:, : self.histograms].cpu()
        return plot_histograms(shown, associated_class(shown, self.threshold))
