"""Logs what the curve of a network with one input looks like."""

from typing import Any

import torch
from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback, measurement_batches
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class CurveShape(MeasureCallback):
    """Logs ``curve_length``, ``convexity_changes`` and ``chord_deviation`` over the range of the training inputs.

    For ReLU networks 1-H-1; exact, see `lnsgd.measures.polyline` and the measures of these names. The chords are those
    of the training points as they are trained on. For its arguments see `lnsgd.callbacks.measure.MeasureCallback`.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("curve_length", "length")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Three numbers."""
        net: Any = subject.module.net
        batches = list(measurement_batches(trainer, subject, "train", None))
        inputs, labels = (torch.cat(column).cpu().double().numpy().ravel() for column in zip(*batches))
        x, y = measures.polyline(net, inputs.min(), inputs.max())
        return [
            Measurement("curve_length", "", "", measures.curve_length(x, y)),
            Measurement("convexity_changes", "", "", measures.convexity_changes(x, y)),
            Measurement("chord_deviation", "train", "", measures.chord_deviation(x, y, inputs, labels)),
        ]
