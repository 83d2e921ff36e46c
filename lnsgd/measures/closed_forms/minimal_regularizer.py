"""The infimum of the implicit regularizer over ReLU networks through given points."""

import numpy as np

# Number of places between two neighbouring points at which the condition below is checked.
_PLACES = 201


def minimal_regularizer(inputs: np.ndarray, labels: np.ndarray) -> float:
    """Compute the infimum of R = (1/n)Σ_i ‖∇h(x_i)‖² over ReLU networks 1-H-1 that fit n points exactly.

    The networks have biases and a direct connection, all of which are trained (Blanc et al.; derived here). A unit
    c·max(0, w·x + b) with its kink at t changes the slope of h by κ = c·|w|. With its weight shared between the layers
    in the best way, it adds |κ|·G(t) to R, G(t) = 2√(A·B). A is the mean over all points of (x_i − t)² and B that of
    1 + x_i², both with 0 for points on the unit's inactive side; the active side is the one for which G is smaller. The
    direct connection and the output's bias add 1 + mean x_i². So R is a weighted total variation of the slope, and its
    minimum is a linear program. If G lies nowhere below the chords between its values at the points, the dual program
    has a solution in closed form, and the minimum is reached by connecting the points:

        R = 1 + mean x_i² + Σ_i |Δ_i|·G(x_i),    Δ_i the change of slope of the data at the i-th point.

    It is an infimum because the kinks are at the points, where a ReLU has no derivative.

    Args:
        inputs: x_i, shape (n,), in any order, no two equal; n ≥ 2.
        labels: y_i, shape (n,).

    Raises:
        ValueError: G is below a chord, so that the closed form need not be the minimum.

    Example:
        >>> round(minimal_regularizer(np.array([-1.0, 0.0, 1.0]), np.array([0.0, 1.0, 2.0])), 4)  # a line, no kink
        1.6667
    """
    order = np.argsort(inputs)
    x, y = inputs[order].astype(float), labels[order].astype(float)
    at_points = _price(x, x)
    for i in range(len(x) - 1):
        t = np.linspace(x[i], x[i + 1], _PLACES)[1:-1]
        if np.any(_price(x, t) < np.interp(t, x, at_points) * (1 - 1e-9)):
            raise ValueError(f"no closed form for the points {np.round(x, 3).tolist()}; take evenly spaced ones")
    change = np.diff(np.diff(y) / np.diff(x))
    return float(1 + np.mean(x**2) + np.abs(change) @ at_points[1:-1])


def _price(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Compute G at kinks t, shape (T,)."""
    both = []
    for side in (1, -1):
        ahead = side * (x - t[:, None])
        sees = ahead > 0
        both.append(2 * np.sqrt(np.mean(np.where(sees, ahead, 0) ** 2, 1) * np.mean(sees * (1 + x**2), 1)))
    return np.minimum(*both)
