"""What the callbacks that look at activation sites share: one observed forward pass per split."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from lnsgd.callbacks.measure import MeasureCallback, Split, measurement_batches, network
from lnsgd.callbacks.measurements import Measurement
from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.sites import activation_sites, observe
from lnsgd.modules.replicated import Subject

M = TypeVar("M", bound=Metric)


class ActivationCallback(MeasureCallback, Generic[M]):
    """Accumulates one metric per activation site over each split.

    Args:
        splits: On which data.
        layers: Shell-style patterns of module names; by default all activation modules.
        examples: On this many examples of each split, a fixed keyed subset; ``null`` for all.
        schedule: See `MeasureCallback`.

    Raises:
        ValueError: on setup, a pattern that matches no module; on measuring, a site that is called
            more than once in a forward pass.
    """

    def __init__(
        self,
        splits: Sequence[Split] = ("train", "val"),
        layers: Sequence[str] | None = None,
        examples: int | None = 10_000,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.splits = splits
        self.layers = layers
        self.examples = examples

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "splits": self.splits, "layers": self.layers, "examples": self.examples}

    @abstractmethod
    def new_metric(self, subject: Subject, num_units: int) -> M:
        """An empty metric for one site, with ``sync_on_compute=False``: it is synchronized once, after the pass."""

    @abstractmethod
    def update(self, metric: M, preactivations: Tensor, labels: Tensor) -> None:
        """Adds a batch to a site's metric."""

    @abstractmethod
    def measurements(self, metric: M, split: Split, layer: str) -> list[Measurement]:
        """The numbers of one site."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that there are activation sites."""
        activation_sites(network(pl_module), self.layers)

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """The numbers of each site on each split."""
        return [
            measurement
            for split in self.splits
            for layer, metric in self.metrics(trainer, subject, split).items()
            for measurement in self.measurements(metric, split, layer)
        ]

    def metrics(self, trainer: Trainer, subject: Subject, split: Split) -> dict[str, M]:
        """One metric per site after a pass over a split in eval mode, summed over processes."""
        found: dict[str, M] = {}
        sites = activation_sites(subject.module, self.layers)
        with torch.no_grad(), evaluation_mode(subject.module):
            for inputs, labels in measurement_batches(trainer, subject, split, self.examples):
                with observe(sites, partial(self._add, subject, found, set(), labels)):
                    subject.module(inputs)
        for metric in found.values():
            metric.sync()
        return found

    def _add(
        self, subject: Subject, found: dict[str, M], seen: set[str], labels: Tensor, layer: str, preactivations: Tensor
    ) -> None:
        if layer in seen:
            raise ValueError(
                f"{layer} is called more than once in a forward pass, so it stands for several layers; give each "
                "activation a module of its own, or leave it out of `layers`"
            )
        seen.add(layer)
        if layer not in found:
            units = preactivations.shape[1:].numel()
            found[layer] = self.new_metric(subject, units).to(preactivations.device)
        self.update(found[layer], preactivations, labels)
