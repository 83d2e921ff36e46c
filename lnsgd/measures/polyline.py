"""The function of a network with one input and one hidden layer of ReLU, exactly."""

import numpy as np
from torch import nn

from lnsgd.models import MLP


def polyline(net: MLP, low: float = -1.0, high: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Knots (x, y) of h on an interval: between neighbours h is linear (Blanc et al., 1-D ReLU networks).

    h(x) = Σ_j c_j·max(0, w_j·x + b_j) + a·x + e has its kinks at −b_j/w_j, and nowhere else.

    Args:
        net: An MLP 1-H-1 with ReLU, with or without biases and direct connection (a).
        low: Left end.
        high: Right end.

    Returns:
        x (K,), increasing from ``low`` to ``high``, and y (K,), both float64; y is NaN where a weight is not finite.

    Raises:
        ValueError: another network; an interval without a length.

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
    x = np.unique([low, *kinks[(kinks > low) & (kinks < high)], high]) + 0.0  # and no -0.0
    return x, np.maximum(np.outer(x, w) + b, 0) @ c + of.get("skip.weight", 0.0) * x + e
