"""Logs what each hidden unit contributes."""

from typing import Any

import torch
from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback, measurement_batches
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class HiddenUnits(MeasureCallback):
    """Logs ``activation``, its mean over the training set, and ``output_weight`` of every hidden unit.

    Unit j has the layer ``net.activations.0.j``. For networks with one hidden layer and one output, see
    `lnsgd.measures.hidden_units`. For its arguments see `lnsgd.callbacks.measure.MeasureCallback`.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("activation", "activation")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Two numbers for each unit."""
        net: Any = subject.module.net
        inputs = torch.cat([inputs for inputs, _ in measurement_batches(trainer, subject, "train", None)])
        units = measures.hidden_units(net, inputs)
        found = []
        for j, (activation, weight) in enumerate(zip(units.activations.mean(0), units.output_weights)):
            layer = f"net.activations.0.{j}"
            found.append(Measurement("activation", "train", layer, activation.item()))
            found.append(Measurement("output_weight", "", layer, weight.item()))
        return found
