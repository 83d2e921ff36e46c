"""Logs how far a network is from the flattest one that fits the data."""

from dataclasses import asdict

import torch
from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measure import mlp_of
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class Sharpness(DataCallback):
    """Logs the numbers of `lnsgd.measures.Sharpness` on the whole training set, such as ``trace/train``.

    For networks Σ_j φ(θ_j·x) only. For its arguments see `lnsgd.callbacks.data_callback.DataCallback`.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("gradient_trace", "trace")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """All of them."""
        net = mlp_of(subject)
        batches = list(self.batches(trainer, subject, "train", None))
        inputs, targets = (torch.cat(tensors) for tensors in zip(*batches))
        found = measures.sharpness(net, inputs, targets)
        return [Measurement(name, "train", "", value) for name, value in asdict(found).items()]
