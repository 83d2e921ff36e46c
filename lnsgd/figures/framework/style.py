"""Draw curves, bands and labels alike in all figures, and format numbers in their tables."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

# Safe for colour-blind readers (Okabe and Ito), and distinct in grey: dark for clean labels, light for noise.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#777777"


def draw_band(axis: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str | None = None, **line: Any) -> None:
    """Draw the mean over seeds as a line and one standard deviation to both sides as a band.

    Args:
        axis: The axes to draw on.
        x: (T,).
        values: (R, T); NaN (a diverged seed) is left out.
        color: Colour of line and band.
        label: Label in the legend.
        line: Further options of the line.
    """
    mean = np.nanmean(values, axis=0)
    axis.plot(x, mean, color=color, label=label, **line)
    if len(values) > 1:
        spread = np.nanstd(values, axis=0, ddof=1)
        axis.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)


def draw_geometric_band(
    axis: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str | None = None, **line: Any
) -> None:
    """Draw a band for a logarithmic axis, with mean and standard deviation of the logarithms of positive values."""
    logarithms = np.log(values)
    mean = np.nanmean(logarithms, axis=0)
    axis.plot(x, np.exp(mean), color=color, label=label, **line)
    if len(values) > 1:
        spread = np.nanstd(logarithms, axis=0, ddof=1)
        axis.fill_between(x, np.exp(mean - spread), np.exp(mean + spread), color=color, alpha=0.2, linewidth=0)


def plain(axis: Axes) -> None:
    """Hide the frame on the right and on top."""
    axis.spines[["top", "right"]].set_visible(False)


def mark_paper(axis: Axes, number: float, label: str, color: str) -> None:
    """Draw a dotted line at a number of the paper, with a label to the right of the axes."""
    axis.axhline(number, color=color, linestyle=":", linewidth=1.2)
    label_beside(axis, number, label, color)


def label_beside(axis: Axes, number: float, label: str, color: str) -> None:
    """Write a label to the right of the axes, at the height of a number."""
    axis.annotate(
        label,
        (1, number),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=color,
        fontsize=9,
    )


def seeds_title(seeds: int) -> str | None:
    """Return the title of a legend whose curves are means over seeds; ``None`` for a single seed."""
    return f"mean ± s.d. over {seeds} seeds" if seeds > 1 else None


def mean_and_deviation(values: np.ndarray, digits: str) -> str:
    """Format the mean of numbers, with their standard deviation if there are several.

    Args:
        values: (R,).
        digits: Format of both numbers, such as ``.2f``.
    """
    deviation = f" ± {values.std(ddof=1):{digits}}" if len(values) > 1 else ""
    return f"{values.mean():{digits}}{deviation}"


def log_spread(steps: np.ndarray, per_decade: int = 20) -> np.ndarray:
    """Choose measurements that are spread evenly over a logarithmic axis, without step 0 and with the last step.

    Curves that were measured every n steps are too dense at the right end of such an axis.

    Args:
        steps: Steps of the measurements, (T,), increasing.
        per_decade: Approximate maximum for each factor of ten.

    Returns:
        Indices of the chosen measurements.
    """
    later = np.flatnonzero(steps > 0)
    place = np.round(per_decade * np.log10(steps[later]))
    return np.union1d(later[np.diff(place, prepend=-1) > 0], later[-1:])
