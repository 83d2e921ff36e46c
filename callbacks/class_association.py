"""Logs how many neurons belong to one class, and draws their firing histograms."""

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor

from lnsgd import measures
from lnsgd.callbacks import pictures
from lnsgd.callbacks.activations import ActivationCallback
from lnsgd.callbacks.measure import Split, subjects
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject
from lnsgd.run_folder import RunFolder, whole_file


class ClassAssociation(ActivationCallback[measures.ClassAssociation]):
    """Logs the class-associated neurons of every activation site, see `lnsgd.measures.ClassAssociation`.

    Logs ``associated_count/<split>/<layer>`` and ``associated_fraction/<split>/<layer>``. At the end of
    training it keeps the firings of each site on the first split in ``firings.safetensors``, draws
    their histograms into the run's ``figures/``, and sends those to loggers that take images.

    Args:
        threshold: A neuron belongs to a class for which it fires at least this many times as much.
        rates: Compare rates per example of a class in place of counts.
        num_classes: C; by default the DataModule's ``num_classes``.
        histograms: Number of neurons drawn, 0 for none.
        options: See `ActivationCallback`.
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

    def new_metric(self, subject: Subject, num_units: int) -> measures.ClassAssociation:
        """An empty metric for one site."""
        classes = self.num_classes or getattr(subject.data, "num_classes", None)
        if classes is None:
            raise ValueError("ClassAssociation: the DataModule does not say its num_classes; give num_classes=")
        return measures.ClassAssociation(classes, num_units, self.threshold, self.rates, sync_on_compute=False)

    def update(self, metric: measures.ClassAssociation, preactivations: Tensor, labels: Tensor) -> None:
        """Adds a batch to a site's metric."""
        metric.update(preactivations, labels)

    def measurements(self, metric: measures.ClassAssociation, split: Split, layer: str) -> list[Measurement]:
        """Count and fraction of one site."""
        associated = metric.compute()
        return [
            Measurement("associated_count", split, layer, associated.count),
            Measurement("associated_fraction", split, layer, associated.fraction),
        ]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the firings of the trained network and draws their histograms."""
        run, split = RunFolder(Path(trainer.log_dir or trainer.default_root_dir)), self.splits[0]
        pl_module.to(trainer.strategy.root_device)  # the Trainer has moved it to the CPU already
        metrics = {subject.replica: self.metrics(trainer, subject, split) for subject in subjects(trainer, pl_module)}
        pl_module.cpu()
        if not trainer.is_global_zero:
            return
        names = pictures.prefixes(pl_module, metrics)
        fired = {name + layer: m.fired.cpu() for r, name in names.items() for layer, m in metrics[r].items()}
        with whole_file(run.firings) as part:
            save_file(fired, part)
        for replica in pictures.drawn(pl_module) if self.histograms else ():
            for layer, metric in metrics[replica].items():
                figure, name = metric.histograms(self.histograms), names[replica] + layer
                pictures.save(figure, run.figures / f"firing_histograms_{name.replace('/', '_')}.png")
                pictures.send(trainer, f"firing_histograms/{split}/{name}", figure)
