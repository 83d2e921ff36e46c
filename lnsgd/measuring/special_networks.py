"""Measurers that are defined for one kind of small network, where a quantity has a closed form."""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from lnsgd.measures import closed_forms, geometry
from lnsgd.measures.forward import one_tensor_of
from lnsgd.measuring.context import Context, Split
from lnsgd.measuring.measurement import Measurement
from lnsgd.measuring.measurer import Measurer
from lnsgd.measuring.source import Source
from lnsgd.measuring.subject import Subject
from lnsgd.models import MatrixFactorization


class WholeTrainingSet(Measurer):
    """Base of the measurers on the whole training set at once."""

    @property
    def measured_splits(self) -> Sequence[Split]:
        """The training split."""
        return ["train"]

    def training_set(self, subject: Subject, source: Source, context: Context) -> tuple[Tensor, Tensor]:
        """Return all inputs (n, …) and labels (n, …)."""
        batches = list(source.batches(subject, "train", None, context))
        return torch.cat([one_tensor_of(inputs) for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


class CurveShapeMeasurer(WholeTrainingSet):
    """Measures ``curve_length``, ``convexity_changes`` and ``chord_deviation`` over the range of the training inputs.

    For ReLU networks 1-H-1 only; exact, see `lnsgd.measures.geometry.polyline` and the measures of these names. The
    chords connect the training points with the labels that they are trained on.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("curve_length", "length")

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure the curve that the network computes."""
        net = subject.mlp()
        inputs, labels = (
            column.cpu().double().numpy().ravel() for column in self.training_set(subject, source, context)
        )
        x, y = geometry.polyline(net, inputs.min(), inputs.max())
        return [
            Measurement("curve_length", "", "", geometry.curve_length(x, y)),
            Measurement("convexity_changes", "", "", geometry.convexity_changes(x, y)),
            Measurement("chord_deviation", "train", "", geometry.chord_deviation(x, y, inputs, labels)),
        ]


class SharpnessMeasurer(WholeTrainingSet):
    """Measures `lnsgd.measures.closed_forms.sharpness` on the whole training set, such as ``trace/train``.

    For networks Σ_j φ(θ_j·x) only.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("gradient_trace", "trace")

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure how far the network is from the flattest one that fits the data."""
        net = subject.mlp()
        found = closed_forms.sharpness(net, *self.training_set(subject, source, context))
        return [Measurement(name, "train", "", value) for name, value in asdict(found).items()]


class RecoveryErrorMeasurer(Measurer):
    """Measures ``recovery_error``, the exact test error of a `MatrixFactorization` on `lnsgd.data.MatrixSensing`.

    See `lnsgd.measures.closed_forms.recovery_error`.

    Raises:
        ValueError: on measuring, another network, or data without a ``target`` matrix.
    """

    headline = ("recovery_error", "recovery")

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure the distance of the network's matrix from the target."""
        net, target = subject.net, getattr(subject.data, "target", None)
        if not (isinstance(net, MatrixFactorization) and isinstance(target, Tensor)):
            raise ValueError(
                f"RecoveryError is for a MatrixFactorization trained on MatrixSensing, not for a {type(net).__name__} "
                f"on {type(subject.data).__name__}; leave the measure out"
            )
        return [Measurement("recovery_error", "", "", closed_forms.recovery_error(net.factor, target))]
