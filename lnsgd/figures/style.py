"""How curves are drawn in all figures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

# Colour-blind safe (Okabe and Ito), told apart in grey too: dark for clean labels, light for noise.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#777777"


def draw_band(axis: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str | None = None, **line: Any) -> None:
    """The mean over seeds as a line and one standard deviation to both sides as a band.

    Args:
        axis: Where.
        x: (T,).
        values: (R, T); NaN (diverged) does not count.
        color: Of both.
        label: In the legend.
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
    """`draw_band` for a logarithmic axis: mean and standard deviation are those of the logarithm of positive values."""
    logarithms = np.log(values)
    mean = np.nanmean(logarithms, axis=0)
    axis.plot(x, np.exp(mean), color=color, label=label, **line)
    if len(values) > 1:
        spread = np.nanstd(logarithms, axis=0, ddof=1)
        axis.fill_between(x, np.exp(mean - spread), np.exp(mean + spread), color=color, alpha=0.2, linewidth=0)


def plain(axis: Axes) -> None:
    """No frame on the right and on top."""
    axis.spines[["top", "right"]].set_visible(False)


def mark_paper(axis: Axes, number: float, label: str, color: str) -> None:
    """A dotted line at a number that the paper gives, with its label to the right of the axis."""
    axis.axhline(number, color=color, linestyle=":", linewidth=1.2)
    label_beside(axis, number, label, color)


def label_beside(axis: Axes, number: float, label: str, color: str) -> None:
    """A label to the right of the axis, at the height of a number."""
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


def log_spread(steps: np.ndarray, per_decade: int = 20) -> np.ndarray:
    """Indices of measurements that are spread evenly over a logarithmic axis, the last included; none at step 0.

    Curves that were measured every n steps are a scribble at the right end of such an axis.

    Args:
        steps: Steps of the measurements, (T,), increasing.
        per_decade: At most about that many for each factor of ten.
    """
    later = np.flatnonzero(steps > 0)
    place = np.round(per_decade * np.log10(steps[later]))
    return np.union1d(later[np.diff(place, prepend=-1) > 0], later[-1:])
