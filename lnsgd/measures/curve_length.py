"""How long a curve is."""

import numpy as np


def curve_length(x: np.ndarray, y: np.ndarray) -> float:
    """Σ_k √((x_{k+1} − x_k)² + (y_{k+1} − y_k)²), the length of a polyline (Blanc et al., Fig. 3).

    In the units of both axes, which count alike. Exact for a piecewise-linear function that is given by its knots.

    Args:
        x: Knots, (K,), increasing.
        y: Values there, (K,).

    Example:
        >>> curve_length(np.array([0.0, 3.0, 4.0]), np.array([0.0, 4.0, 4.0]))
        6.0
    """
    return float(np.hypot(np.diff(x), np.diff(y)).sum())
