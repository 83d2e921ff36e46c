"""Results of measuring: numbers, pictures and distributions over units."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TRAINED = "trained"
"""The weights that the optimizer trains, of which every number is that does not say otherwise."""

AVERAGED = "averaged"
"""Averages of the trained weights over steps, such as those of Lightning's ``WeightAveraging``."""


REPLACED = "replaced"
"""Weights with which a callback has replaced the trained ones at the end of training."""


class Measurement(NamedTuple):
    """One measured number.

    Attributes:
        measure: Name of the quantity, such as ``active_fraction``.
        split: Split of the data it was measured on; empty if it depends on the weights alone.
        layer: Name of the module or tensor; empty for the whole network.
        value: The number.
        stderr: Its standard error; NaN if the number is exact.
        which_weights: Which weights of the network were measured: ``TRAINED``, ``AVERAGED`` or ``REPLACED``.
    """

    measure: str
    split: str
    layer: str
    value: float
    stderr: float = float("nan")
    which_weights: str = TRAINED

    @property
    def name(self) -> str:
        """Name in loggers: ``measure/split/layer`` without the empty parts; of averaged weights after ``averaged/``."""
        weights = "" if self.which_weights == TRAINED else self.which_weights
        return "/".join(part for part in (weights, self.measure, self.split, self.layer) if part)


class Picture(NamedTuple):
    """A picture of one network.

    Attributes:
        group: First part of its name, such as ``firing_histograms/train``; a replica is named after it.
        name: Last part of its name, such as the layer.
        figure: The picture.
    """

    group: str
    name: str
    figure: "Figure"

    def named(self, replica: str) -> str:
        """Name in loggers; ``replica`` is empty or ends with a slash."""
        return f"{self.group}/{replica}{self.name}"


class Distribution(NamedTuple):
    """One number in [0, 1] for each unit of a layer, to be shown as a histogram.

    Attributes:
        group: First part of its name, such as ``firing_rate/train``; a replica is named after it.
        name: Last part of its name, such as the layer.
        values: The numbers, shape (units,).
    """

    group: str
    name: str
    values: Tensor

    def named(self, replica: str) -> str:
        """Name in loggers; ``replica`` is empty or ends with a slash."""
        return f"{self.group}/{replica}{self.name}"


def leaf_names(measurements: Iterable[Measurement]) -> dict[str, str]:
    """Return names of which none is the beginning of another, as a path, by the names that `scalars` gives.

    A number of the whole network has the layer ``total``, and a standard error is a measure of its own: the names of
    ``hessian_trace/train`` are ``hessian_trace/train/total`` and ``hessian_trace_stderr/train/total``.

    Args:
        measurements: Measurements of one network, with different names.
    """
    named: dict[str, str] = {}
    for measurement in measurements:
        layer = measurement.layer or "total"
        named[measurement.name] = measurement._replace(layer=layer).name
        error = measurement._replace(measure=f"{measurement.measure}_stderr", layer=layer)
        named[f"{measurement.name}/stderr"] = error.name
    return named


def scalars(measurements: Iterable[Measurement]) -> dict[str, float]:
    """Return measurements as loggers take them: numbers by name, standard errors as ``<name>/stderr``.

    Args:
        measurements: Measurements of one network, with different names.
    """
    named: dict[str, float] = {}
    for measurement in measurements:
        named[measurement.name] = measurement.value
        if not math.isnan(measurement.stderr):
            named[f"{measurement.name}/stderr"] = measurement.stderr
    return named
