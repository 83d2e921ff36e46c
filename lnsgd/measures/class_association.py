"""How many neurons belong to one class."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lnsgd.measures.curvature.problem import NonFiniteError
from lnsgd.measures.firings import Firings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def associated_class(firings: Tensor, threshold: float = 2.0) -> Tensor:
    """The class each unit is associated with, or −1 (Cornacchia et al., §6.2: digit-associated neurons).

    A unit is associated with class c if it fires at least ``threshold`` times as much for c as for
    any other class. A unit that never fires is associated with none.

    Args:
        firings: How much each unit fires for each class, shape (C, units), C ≥ 2: counts or rates.
        threshold: At least 1.

    Returns:
        Class indices (units,), int64.

    Raises:
        ValueError: threshold below 1, where a unit could have two classes; fewer than two classes.
        NonFiniteError: a number is NaN or infinite.

    Example:
        >>> associated_class(torch.tensor([[4, 4, 0], [2, 3, 0]]))
        tensor([ 0, -1, -1])
    """
    if threshold < 1:
        raise ValueError(f"threshold = {threshold} is below 1; a neuron could then belong to two classes")
    if firings.is_floating_point() and not firings.isfinite().all():
        raise NonFiniteError("firings are not finite (NaN or infinite)")
    if len(firings) < 2:
        raise ValueError(f"firings of {len(firings)} class; association compares at least two classes")
    top, classes = firings.topk(2, dim=0)
    associated = (top[0] > 0) & (top[0] >= threshold * top[1])
    return torch.where(associated, classes[0], -1)


@dataclass  # not frozen: torchmetrics copies results field by field
class Association:
    """Class-associated neurons of one layer, as a count and as a fraction of its units; NaN as `Firings.nonfinite`."""

    count: float
    fraction: float


def firing_rates(firings: Firings) -> Tensor:
    """Rates per example of the class, shape (C, units), float64; 0 for a class without examples."""
    return firings.fired.double() / firings.examples.clamp(min=1).unsqueeze(1)


def association(firings: Tensor, threshold: float = 2.0) -> Association:
    """Number and fraction of units that `associated_class` gives a class; arguments and errors are its own."""
    count = int((associated_class(firings, threshold) >= 0).sum())
    return Association(count, count / firings.shape[1])


class ClassAssociation(Firings):
    """`associated_class` accumulated over batches, exact: integer counts, summed over processes.

    Args:
        num_classes: C, at least 2.
        num_units: Units of the layer.
        threshold: See `associated_class`.
        rates: Compare rates per example of a class in place of counts. They differ where classes
            have different sizes (about 10 % of the neurons on MNIST).
        options: Of every ``torchmetrics.Metric``.

    Attributes:
        fired: On how many examples of each class each unit was active, shape (C, units), int64.
        examples: Number of examples of each class, shape (C,), int64.
    """

    def __init__(
        self, num_classes: int, num_units: int, threshold: float = 2.0, rates: bool = False, **options: Any
    ) -> None:
        super().__init__(num_classes, num_units, **options)
        self.threshold = threshold
        self.rates = rates

    def firings(self) -> Tensor:
        """What is compared: counts, or rates per example of the class; shape (C, units), float64."""
        return firing_rates(self) if self.rates else self.fired.double()

    def classes(self) -> Tensor:
        """The class of each unit, or −1; shape (units,)."""
        return associated_class(self.firings(), self.threshold)

    def compute(self) -> Association:  # type: ignore[override]
        """Number and fraction of associated units over all examples so far.

        Raises:
            ValueError: there were none.
        """
        if not self.examples.any():
            raise ValueError("class association of no examples; update the metric first")
        if self.nonfinite:
            return Association(math.nan, math.nan)
        return association(self.firings(), self.threshold)

    def histograms(self, neurons: int = 30) -> "Figure":
        """Firing histograms of the layer's first neurons, bars of the associated class in red."""
        return plot_histograms(self.firings()[:, :neurons].cpu(), self.classes()[:neurons].cpu())


def draw_histogram(axis: "Axes", firings: Tensor, associated: int) -> None:
    """One neuron's firings per class, shape (C,), as bars; the associated class (or −1: none) in red."""
    colors = ["tab:red" if c == associated else "0.6" for c in range(len(firings))]
    axis.bar(range(len(firings)), firings.tolist(), color=colors)
    axis.set_xticks(range(len(firings)))
    axis.tick_params(labelsize=5, length=0, pad=1)
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)


def plot_histograms(firings: Tensor, classes: Tensor, columns: int = 10) -> "Figure":
    """A page of small bar charts, one per neuron: firings per class (Cornacchia et al., Fig. 6).

    Args:
        firings: Shape (C, neurons).
        classes: Associated class of each neuron or −1, shape (neurons,); its bar is red.
        columns: Charts in a row.
    """
    from matplotlib.figure import Figure

    neurons = firings.shape[1]
    columns = min(columns, neurons)
    rows = -(-neurons // columns)
    figure = Figure(figsize=(1.2 * columns, 1.1 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unit, axis in enumerate(axes):
        if unit >= neurons:
            axis.set_axis_off()
            continue
        draw_histogram(axis, firings[:, unit], int(classes[unit]))
        axis.set_title(f"neuron {unit}", fontsize=7, pad=2)
    return figure
