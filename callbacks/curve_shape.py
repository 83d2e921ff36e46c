"""Logs what the curve of a network with one input looks like."""

import torch
from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measure import mlp_of
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class CurveShape(DataCallback):
    """Logs ``curve_length``, ``convexity_changes`` and ``chord_deviation`` over the range of the training inputs.

    For ReLU networks 1-H-1; exact, see `lnsgd.measures.polyline` and the measures of these names. The chords are those
    of the training points as they are trained on. For its arguments see `lnsgd.callbacks.data_callback.DataCallback`.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("curve_length", "length")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Three numbers."""
        net = mlp_of(subject)
        batches = list(self.batches(trainer, subject, "train", None))
        inputs, labels = (torch.cat(column).cpu().double().numpy().ravel() for column in zip(*batches))
        x, y = measures.polyline(net, inputs.min(), inputs.max())
        return [
            Measurement("curve_length", "", "", measures.curve_length(x, y)),
            Measurement("convexity_changes", "", "", measures.convexity_changes(x, y)),
            Measurement("chord_deviation", "train", "", measures.chord_deviation(x, y, inputs, labels)),
        ]
