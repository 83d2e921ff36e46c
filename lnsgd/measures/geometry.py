"""Measures of the curve that a ReLU network with one input and one output draws (Blanc et al., 1-D ReLU networks).

The network is piecewise linear, so its curve is given exactly by its knots; `polyline` finds them.
"""

from math import nan

import numpy as np
from torch import nn

from lnsgd.models import MLP


def polyline(net: MLP, low: float = -1.0, high: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Compute the knots (x, y) of a network on an interval; between neighbouring knots it is linear.

    h(x) = Σ_j c_j·max(0, w_j·x + b_j) + a·x + e has its kinks at −b_j/w_j and nowhere else.

    Args:
        net: An MLP 1-H-1 with ReLU, with or without biases and direct connection (a).
        low: Left end of the interval.
        high: Right end of the interval.

    Returns:
        x (K,), increasing from ``low`` to ``high``, and y (K,), both float64. If a weight is not finite, x is the ends
        of the interval and y is NaN.

    Raises:
        ValueError: another network, or an interval without a length.

    Example:
        >>> from lnsgd.models import Constant
        >>> x, y = polyline(MLP([1, 1, 1], bias=False, init=Constant(2.0)))
        >>> x.tolist(), y.tolist()
        ([-1.0, 0.0, 1.0], [0.0, 0.0, 4.0])
    """
    if len(net.widths) != 3 or net.widths[0] != 1 or net.widths[2] != 1 or not isinstance(net.activations[0], nn.ReLU):
        raise ValueError(f"polyline: widths = {net.widths}; the network must be an MLP [1, H, 1] with relu")
    if not low < high:
        raise ValueError(f"polyline: from low = {low} to high = {high}; low must be less than high")
    of = {name: p.detach().cpu().double().numpy().ravel() for name, p in net.named_parameters()}
    w, c = of["layers.0.weight"], of["layers.1.weight"]
    b, e = of.get("layers.0.bias", np.zeros_like(w)), of.get("layers.1.bias", 0.0)
    if not all(np.isfinite(values).all() for values in of.values()):
        return np.array([low, high], dtype=float), np.full(2, np.nan)
    bent = w != 0
    kinks = -b[bent] / w[bent]
    x = np.unique([low, *kinks[(kinks > low) & (kinks < high)], high]) + 0.0  # + 0.0 turns -0.0 into 0.0
    return x, np.maximum(np.outer(x, w) + b, 0) @ c + of.get("skip.weight", 0.0) * x + e


def curve_length(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the length of a polyline, Σ_k √((x_{k+1} − x_k)² + (y_{k+1} − y_k)²) (Blanc et al., Fig. 3).

    Both axes count alike, in their own units. The length is exact for a piecewise-linear function given by its knots.

    Args:
        x: Knots, (K,), increasing.
        y: Values at the knots, (K,).

    Example:
        >>> curve_length(np.array([0.0, 3.0, 4.0]), np.array([0.0, 4.0, 4.0]))
        6.0
    """
    return float(np.hypot(np.diff(x), np.diff(y)).sum())


def convexity_changes(x: np.ndarray, y: np.ndarray, merge: float = 0.02, tolerance: float = 0.1) -> float:
    """Count how often a piecewise-linear function changes between convex and concave.

    The function is convex where its slope rises and concave where its slope falls, so this is the number of local
    extrema of the sequence of slopes. Two things that cannot be seen in a plot do not count: a knot closer than
    ``merge`` to the knot before it is left out, and a slope has turned only once it has come back by more than
    ``tolerance``.

    Args:
        x: Knots, (K,), increasing; the first and the last are the ends of the interval.
        y: Values at the knots, (K,).
        merge: Smallest distance of two knots that count as two, in units of x.
        tolerance: Smallest change of the slope that counts, in units of the slope.

    Returns:
        0 for a line, a convex or a concave function; 1 for a zigzag of three parts; NaN if a number is not finite.

    Example:
        >>> convexity_changes(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.0, 1.0]))
        1.0
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return nan
    kept = _knots_apart(x, merge)
    return float(_count_turns(np.diff(y[kept]) / np.diff(x[kept]), tolerance))


def _knots_apart(x: np.ndarray, merge: float) -> list[int]:
    """Return the indices of knots that are at least ``merge`` apart, both ends included."""
    kept = [0]
    for k in range(1, len(x) - 1):
        if x[k] - x[kept[-1]] >= merge and x[-1] - x[k] >= merge:
            kept.append(k)
    return [*kept, len(x) - 1]


def _count_turns(values: np.ndarray, tolerance: float) -> int:
    """Count the local extrema from which a sequence comes back by more than the tolerance."""
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


def chord_deviation(
    x: np.ndarray, y: np.ndarray, inputs: np.ndarray, labels: np.ndarray, tolerance: float = 1e-5
) -> float:
    """Compute the largest |h − chord| between three neighbouring data points that lie on a line.

    In the theory, a network that label noise has simplified is linear there. The chord goes through the data points,
    so that a network that does not fit them deviates too.

    Args:
        x: Knots of h, (K,), increasing, which cover all data points.
        y: Values of h at the knots, (K,).
        inputs: Data points, (n,), in any order.
        labels: Targets of the data points, (n,).
        tolerance: Three points are on a line if the second is this close to the chord of the others, relative to the
            range of all labels; inputs and labels are of single precision.

    Returns:
        The largest deviation over all such triples, in units of y; NaN if there is no such triple, or if a number is
        not finite.

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
