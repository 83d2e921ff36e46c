"""How far a curve leaves the chord of three points on a line."""

from math import nan

import numpy as np


def chord_deviation(
    x: np.ndarray, y: np.ndarray, inputs: np.ndarray, labels: np.ndarray, tolerance: float = 1e-5
) -> float:
    """Largest |h − chord| between three neighbouring data points on a line (Blanc et al., 1-D ReLU networks).

    In the theory a network that label noise has simplified is linear there. The chord goes through the data, so that a
    network that does not fit them deviates too.

    Args:
        x: Knots of h, (K,), increasing, from the first data point or before it to the last or after it.
        y: Values of h there, (K,).
        inputs: Data points, (n,), in any order.
        labels: Their targets, (n,).
        tolerance: Three points are on a line if the second is that near to the chord of the others, in parts of the
            range of all labels; inputs and labels are of single precision.

    Returns:
        The largest deviation over all such triples, in units of y; NaN where there is none, or where a number is not
        finite.

    Example:
        >>> line = np.array([0.0, 1.0, 2.0])
        >>> chord_deviation(np.array([0.0, 0.5, 2.0]), np.array([0.0, 0.75, 2.0]), line, line)
        0.25
    """
    if not all(np.isfinite(numbers).all() for numbers in (x, y, inputs, labels)):
        return nan
    order = np.argsort(inputs)
    points, targets = inputs[order], labels[order]
    found = [nan]
    for i in range(len(points) - 2):
        ends, values = points[[i, i + 2]], targets[[i, i + 2]]
        if abs(targets[i + 1] - np.interp(points[i + 1], ends, values)) > tolerance * np.ptp(targets):
            continue
        # The difference of two piecewise-linear functions is largest at a knot of one of them.
        at = np.concatenate([ends, x[(x > ends[0]) & (x < ends[1])]])
        found.append(np.abs(np.interp(at, x, y) - np.interp(at, ends, values)).max())
    return float(np.fmax.reduce(found))
