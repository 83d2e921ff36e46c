"""How often a curve changes between convex and concave."""

from math import nan

import numpy as np


def convexity_changes(x: np.ndarray, y: np.ndarray, merge: float = 0.02, tolerance: float = 0.1) -> float:
    """How often a piecewise-linear function changes between convex and concave (Blanc et al., 1-D ReLU networks).

    It is convex where its slope rises and concave where it falls, so this is the number of local extrema of the
    slope, piece by piece. Two things that cannot be seen in a plot do not count: knots less than ``merge`` after
    another are left out, and a slope has turned only once it has come back by more than ``tolerance``.

    Args:
        x: Knots, (K,), increasing; the first and the last are the ends of the interval.
        y: Values there, (K,).
        merge: In units of x.
        tolerance: In units of the slope.

    Returns:
        0 for a line, a convex or a concave function; 1 for a zigzag of three pieces; NaN where a number is not finite.

    Example:
        >>> convexity_changes(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.0, 1.0]))
        1.0
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return nan
    kept = _apart(x, merge)
    return float(_turns(np.diff(y[kept]) / np.diff(x[kept]), tolerance))


def _apart(x: np.ndarray, merge: float) -> list[int]:
    """Indices of knots that are at least ``merge`` apart, the ends included."""
    kept = [0]
    for k in range(1, len(x) - 1):
        if x[k] - x[kept[-1]] >= merge and x[-1] - x[k] >= merge:
            kept.append(k)
    return [*kept, len(x) - 1]


def _turns(values: np.ndarray, tolerance: float) -> int:
    """Number of local extrema from which a sequence comes back by more than the tolerance."""
    turns, direction = 0, 0
    low = high = values[0]
    for value in values:
        low, high = min(low, value), max(high, value)
        if direction >= 0 and high - value > tolerance:
            turns += direction > 0
            direction, low = -1, value
        elif direction <= 0 and value - low > tolerance:
            turns += direction < 0
            direction, high = 1, value
    return turns
