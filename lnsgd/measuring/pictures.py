"""Pictures of measurements. matplotlib is imported when one is drawn."""

from math import pi, sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lnsgd.measures import SpectralQuadrature

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A chart in its unit square: the margin at either side, the height of the ground, and the size of the bars.
_MARGIN, _FLOOR = 0.08, 0.16
_CHART_WIDTH, _CHART_HEIGHT = 1 - 2 * _MARGIN, 0.62

# The classes are named below the charts if they are not more.
_LABELLED_CLASSES = 20


def draw_histogram(axis: "Axes", firings: Tensor, associated: int) -> None:
    """Draw how often one neuron fires for each class as bars, the bar of its class in red.

    Args:
        axis: Axes to draw into.
        firings: Counts or rates, shape (C,).
        associated: The class that the neuron is associated with, or −1.
    """
    colors = ["tab:red" if c == associated else "0.6" for c in range(len(firings))]
    axis.bar(range(len(firings)), firings.tolist(), color=colors)
    axis.set_xticks(range(len(firings)))
    axis.tick_params(labelsize=5, length=0, pad=1)
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)


def plot_histograms(firings: Tensor, classes: Tensor, columns: int = 10, unit: str = "neuron") -> "Figure":
    """Draw a small bar chart for each neuron: how often it fires for each class (Cornacchia et al., Fig. 6).

    All charts are one collection in one pair of axes, chart number k in the unit square with its lower left corner at
    (k mod columns, −⌊k / columns⌋), because a page of thirty pairs of axes takes seconds.

    Args:
        firings: Counts or rates, shape (C, neurons); each chart is scaled to its largest bar.
        classes: Associated class of each neuron or −1, shape (neurons,); its bar is red.
        columns: Number of charts in a row.
        unit: What a neuron is called in the titles, such as ``channel``.
    """
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.figure import Figure

    number, neurons = firings.shape
    columns = max(1, min(columns, neurons))
    rows = -(-neurons // columns)
    figure = Figure(figsize=(1.2 * columns, 1.1 * rows))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, columns), ylim=(1 - rows, 1), frame_on=False, xticks=[], yticks=[])
    left, bottom = torch.arange(neurons) % columns, -(torch.arange(neurons) // columns)
    width, height = _CHART_WIDTH / number, _CHART_HEIGHT * (firings / firings.amax(0).clamp(min=1e-30)).double()
    x = left + _MARGIN + width * (torch.arange(number).unsqueeze(1) + 0.1)
    y = (bottom + _FLOOR).expand(number, -1)
    corners = [(x, y), (x, y + height), (x + 0.8 * width, y + height), (x + 0.8 * width, y)]
    bars = torch.stack([torch.stack(torch.broadcast_tensors(*corner), -1) for corner in corners], -2)
    is_red = torch.arange(number).unsqueeze(1) == classes
    colors = ["tab:red" if red else "0.6" for red in is_red.flatten().tolist()]
    axis.add_collection(PolyCollection(bars.flatten(0, 1).tolist(), facecolors=colors))
    ground = [
        [(k, h + _FLOOR), (k + 1 - 2 * _MARGIN, h + _FLOOR)] for k, h in zip((left + _MARGIN).tolist(), bottom.tolist())
    ]
    axis.add_collection(LineCollection(ground, colors="0", linewidths=0.8))
    for k, (column, low) in enumerate(zip(left.tolist(), bottom.tolist())):
        axis.text(column + 0.5, low + 0.88, f"{unit} {k}", fontsize=7, ha="center", va="center")
        if k + columns >= neurons and number <= _LABELLED_CLASSES:  # the last chart of its column
            for c in range(number):
                place = column + _MARGIN + width * (c + 0.5)
                axis.text(place, low + _FLOOR - 0.03, str(c), fontsize=5, ha="center", va="top")
    return figure


def plot_spectral_density(
    spectrum: SpectralQuadrature, top: Tensor | None = None, width: float | None = None
) -> "Figure":
    """Draw a smoothed spectral density on a logarithmic axis, down to a tenth of the height of a single eigenvalue.

    Args:
        spectrum: The density.
        top: Largest eigenvalues, (count,), as from `lnsgd.measures.top_eigenvalues`; each is marked at the height of a
            single one.
        width: Standard deviation of the Gaussian, see `lnsgd.measures.SpectralQuadrature.density`.

    Raises:
        ValueError: a width that is not positive.
    """
    from matplotlib.figure import Figure

    width = spectrum.checked_width(width)
    (low, high), single = spectrum.range, 1 / (spectrum.parameters * width * sqrt(2 * pi))
    grid = torch.linspace(low - 4 * width, high + 4 * width, 2000, dtype=torch.float64)
    density = spectrum.density(grid, width)
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    axis.fill_between(grid, density, single / 100, color="0.8", linewidth=0)
    axis.plot(grid, density, color="0.3", linewidth=1)
    if top is not None:
        label = f"the {len(top)} largest" if len(top) > 1 else "the largest"
        axis.plot(top, [single] * len(top), "v", color="tab:red", markersize=5, label=label)
        axis.legend(frameon=False)
    axis.set_yscale("log")
    axis.set_ylim(single / 10, 3 * density.max().item())
    axis.set_xlabel("eigenvalue of the Hessian")
    axis.set_ylabel(f"density (Gaussian of width {width:.2g})")
    axis.spines[["top", "right"]].set_visible(False)
    return figure
