"""Logs how far a network is from the flattest one that fits the data."""

from dataclasses import asdict
from typing import Any

import torch
from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback, measurement_batches
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class Sharpness(MeasureCallback):
    """Logs the numbers of `lnsgd.measures.Sharpness` on the whole training set, such as ``trace/train``.

    For networks Σ_j φ(θ_j·x) only. For its arguments see `lnsgd.callbacks.measure.MeasureCallback`.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("gradient_trace", "trace")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """All of them."""
        net: Any = subject.module.net
        batches = list(measurement_batches(trainer, subject, "train", None))
        inputs, targets = (torch.cat(tensors) for tensors in zip(*batches))
        found = measures.sharpness(net, inputs, targets)
        return [Measurement(name, "train", "", value) for name, value in asdict(found).items()]
