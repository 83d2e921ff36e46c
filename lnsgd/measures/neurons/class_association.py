"""Association of neurons with classes."""

import math

import torch
from torch import Tensor

from lnsgd.measures.neurons.firings import Firings, UnitCount
from lnsgd.measures.nonfinite import NonFiniteError


def associated_class(firings: Tensor, threshold: float = 2.0) -> Tensor:
    """Find the class that each unit is associated with (digit-associated neurons: Cornacchia et al., section 6.2).

    A unit is associated with class c if it fires at least ``threshold`` times as much for c as for any other class. A
    unit that never fires is associated with no class.

    Args:
        firings: How much each unit fires for each class, counts or rates, shape (C, units), C ≥ 2.
        threshold: At least 1.

    Returns:
        Class indices (units,), int64; −1 for a unit without a class.

    Raises:
        ValueError: threshold below 1, for which a unit could have two classes; fewer than two classes.
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


def class_firings(firings: Firings, rates: bool = False) -> Tensor:
    """Return how much each unit fires for each class: the numbers that `associated_class` compares.

    Args:
        firings: Counts by class of one layer.
        rates: Divide the counts of a class by its number of examples. Counts and rates differ if classes have
            different sizes (for about 10 % of the neurons on MNIST).

    Returns:
        Counts or rates, shape (C, units), float64; a class without examples has rate 0.
    """
    counts = firings.fired.double()
    return counts / firings.examples.clamp(min=1).unsqueeze(1) if rates else counts


def channel_sums(values: Tensor, unit_shape: tuple[int, ...]) -> Tensor:
    """Add up numbers of units over the positions of each channel, or over the tokens of each feature.

    Of two axes (tokens, features) the channels are the last one. Of three or more they are the first one (channels,
    height, width), unless the others have equal sizes without the last one (height, width, channels).

    Args:
        values: Numbers by class, shape (C, units), such as those of `class_firings`.
        unit_shape: How the units are laid out, see `Firings`.

    Returns:
        Sums, shape (C, channels); of units in one row, the values as they are.

    Example:
        >>> channel_sums(torch.arange(6).reshape(1, 6), (3, 2)).tolist()
        [[6, 9]]
        >>> channel_sums(torch.arange(8).reshape(1, 8), (2, 2, 2)).tolist()
        [[6, 22]]
    """
    if len(unit_shape) < 2:
        return values
    is_last = len(unit_shape) == 2 or (len(set(unit_shape[:-1])) == 1 and len(set(unit_shape[1:])) > 1)
    maps = values.reshape(len(values), *unit_shape).movedim(-1 if is_last else 1, 1)
    return maps.flatten(2).sum(2)


def associated_count(firings: Firings, threshold: float = 2.0, rates: bool = False) -> UnitCount:
    """Count the units that `associated_class` associates with a class (Cornacchia et al., section 6.2).

    Args:
        firings: Counts by class of one layer, of at least two classes.
        threshold: See `associated_class`, at least 1.
        rates: See `class_firings`.

    Returns:
        The number; NaN without examples, and if a pre-activation was NaN or infinite.

    Raises:
        ValueError: threshold below 1, or fewer than two classes.
    """
    classes = associated_class(class_firings(firings, rates), threshold)
    return UnitCount(int((classes >= 0).sum()) if firings.is_meaningful else math.nan, len(classes))
