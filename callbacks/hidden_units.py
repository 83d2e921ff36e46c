"""Logs what each hidden unit contributes."""

import torch
from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measure import mlp_of
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class HiddenUnits(DataCallback):
    """Logs ``activation``, its mean over the training set, and ``output_weight`` of every hidden unit.

    Unit j has the layer ``net.activations.0.j``. For networks with one hidden layer and one output, see
    `lnsgd.measures.hidden_units`. For its arguments see `lnsgd.callbacks.data_callback.DataCallback`.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("activation", "activation")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Two numbers for each unit."""
        net = mlp_of(subject)
        inputs = torch.cat([inputs for inputs, _ in self.batches(trainer, subject, "train", None)])
        units = measures.hidden_units(net, inputs)
        found = []
        for j, (activation, weight) in enumerate(zip(units.activations.mean(0), units.output_weights)):
            layer = f"net.activations.0.{j}"
            found.append(Measurement("activation", "train", layer, activation.item()))
            found.append(Measurement("output_weight", "", layer, weight.item()))
        return found
