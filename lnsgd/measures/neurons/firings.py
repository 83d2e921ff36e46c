"""Counts of how often neurons fire: in total, for each class, and not at all."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

# Pre-activations are processed in parts of at most this many numbers: more of them leave the caches of a CPU, which
# takes twice as long.
_AT_ONCE = 2**20


def firing(preactivations: Tensor) -> Tensor:
    """Say which units are active: those whose pre-activation is > 0.

    Args:
        preactivations: Pre-activations of one layer, shape (B, …); all but the first dimension are units.

    Returns:
        Boolean, shape (B, units); (B, 1) of pre-activations (B,).
    """
    return _rows(preactivations) > 0


def _rows(preactivations: Tensor) -> Tensor:
    return preactivations.flatten(1) if preactivations.ndim > 1 else preactivations.unsqueeze(1)


def nonfinite_preactivations(preactivations: Tensor) -> Tensor:
    """Say whether a pre-activation is NaN or infinite: whether such a unit fires means nothing.

    Numbers so large that their sum overflows single precision count as infinite, because a second pass over the
    numbers would double the time.

    Args:
        preactivations: Pre-activations of one layer, shape (B, …).

    Returns:
        0 or 1, int64.
    """
    finite = preactivations.sum(dtype=torch.promote_types(preactivations.dtype, torch.float32)).isfinite()
    return (~finite).long()


def mean_active(preactivations: Tensor) -> float:
    """Compute the typical number of active neurons: (1/B)·Σ_i |{units with pre-activation > 0 on example i}|.

    This is the mean over the examples of the number of active units of one layer (Cornacchia et al., section 4); see
    `active_neurons` for a network.

    Args:
        preactivations: Pre-activations of one layer, shape (B, …); all but the first dimension are units.

    Returns:
        A number of units; NaN without examples, and if a pre-activation is NaN or infinite.

    Example:
        >>> mean_active(torch.tensor([[1.0, -1.0, 2.0], [-1.0, -1.0, 0.5]]))
        1.5
    """
    if nonfinite_preactivations(preactivations):
        return math.nan
    return firing(preactivations).sum(1).double().mean().item()


def count_firings(preactivations: Tensor, members: Tensor) -> Tensor:
    """Count on how many examples of each group each unit is active.

    Args:
        preactivations: Pre-activations of one layer, shape (B, …); all but the first dimension are units.
        members: 1 if an example is in a group, else 0; shape (B, G), float32.

    Returns:
        Counts (G, units), int64.

    Example:
        >>> count_firings(torch.tensor([[1.0, -1.0], [2.0, 0.5]]), torch.eye(2))
        tensor([[1, 0],
                [1, 1]])
    """
    flat = _rows(preactivations)
    examples = max(1, _AT_ONCE // max(1, flat.shape[1]))
    counts = torch.zeros(members.shape[1], flat.shape[1], dtype=torch.int64, device=flat.device)
    # Sums of 0/1 products in float32 are exact up to 2²⁴ examples; autocast would use a less precise type.
    with torch.autocast(flat.device.type, enabled=False):
        for part, groups in zip(flat.split(examples), members.split(examples)):
            counts += (groups.T @ firing(part).float()).long()
    return counts


class Firings(Metric):
    """Counts of `count_firings` by class, accumulated over batches.

    The counts are integers, so that they are exact and do not depend on how the data is split into batches or over
    processes, which are summed.

    Args:
        num_classes: C; with 1, examples of all classes are counted together.
        num_units: Units of the layer (channels × height × width for a convolution).
        unit_shape: How the units are laid out, such as (channels, height, width); by default in one row.
        options: Options of every ``torchmetrics.Metric``.

    Attributes:
        unit_shape: See above.
        fired: Number of examples of each class on which each unit was active, shape (C, units), int64.
        examples: Number of examples of each class, shape (C,), int64.
        nonfinite: Number of batches with a pre-activation that was NaN or infinite; unless it is 0, the counts mean
            nothing.

    Example:
        >>> firings = Firings(num_classes=2, num_units=3)
        >>> firings.update(torch.tensor([[1.0, -1.0, 0.0], [2.0, 3.0, -1.0]]), torch.tensor([0, 1]))
        >>> firings.fired.tolist(), firings.examples.tolist()
        ([[1, 0, 0], [1, 1, 0]], [1, 1])
        >>> active_count(firings).count, dead_count(firings).count
        (1.5, 1)
    """

    full_state_update = False
    fired: Tensor
    examples: Tensor
    nonfinite: Tensor

    def __init__(
        self, num_classes: int, num_units: int, unit_shape: tuple[int, ...] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.unit_shape = (num_units,) if unit_shape is None else unit_shape
        self.add_state("fired", torch.zeros(num_classes, num_units, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("examples", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("nonfinite", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preactivations: Tensor, labels: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            preactivations: Pre-activations, shape (B, …).
            labels: Class of each example, shape (B,), int64; not used if C = 1.

        Raises:
            ValueError: labels that are not classes from 0 to C − 1, one for each example.
        """
        classes = len(self.examples)
        if classes > 1:
            assert labels is not None
            members = one_hot(check_classes(labels, classes), classes).float()
        else:
            members = preactivations.new_ones(len(preactivations), 1).float()
        self.fired += count_firings(preactivations, members)
        self.examples += members.sum(0).long()
        self.nonfinite += nonfinite_preactivations(preactivations)

    def compute(self) -> Tensor:
        """Return the counts ``fired``, shape (C, units)."""
        return self.fired

    @property
    def is_meaningful(self) -> bool:
        """Whether there were examples, all with finite pre-activations."""
        return bool(self.examples.any()) and not bool(self.nonfinite)


def check_classes(labels: Tensor, classes: int | None = None) -> Tensor:
    """Return labels, shape (B,), as they are.

    Args:
        labels: Class of each example.
        classes: Number of classes C, if it is known.

    Raises:
        ValueError: labels that are not class indices, one for each example, or that are not below C.
    """
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype}, are not classes; classes must be indices (B,), "
            "one for each example"
        )
    low, high = (int(label) for label in labels.aminmax()) if len(labels) else (0, 0)
    if low < 0 or (classes is not None and high >= classes):
        allowed = "0 and above" if classes is None else f"0 to {classes - 1}"
        raise ValueError(
            f"label {low if low < 0 else high} is not a class; classes are {allowed}: leave out examples that are not "
            "labelled, or give num_classes"
        )
    return labels


@dataclass(frozen=True)
class UnitCount:
    """A number of units among those of one layer, or of several layers together.

    Attributes:
        count: Number of units, or a mean number over examples.
        units: Number of units that there are.
    """

    count: float
    units: int

    @property
    def fraction(self) -> float:
        """``count`` divided by the number of units, 0 to 1; NaN if there are none."""
        return self.count / self.units if self.units else math.nan


def total_count(counts: Iterable[UnitCount]) -> UnitCount:
    """Add up the counts of layers.

    Args:
        counts: Counts by layer; if one is NaN, so is the sum.

    Example:
        >>> total_count([UnitCount(1.5, 3), UnitCount(2, 4)]).fraction
        0.5
    """
    listed = list(counts)
    return UnitCount(sum(one.count for one in listed), sum(one.units for one in listed))


def active_count(firings: Firings) -> UnitCount:
    """Compute the typical number of active neurons from counts, see `active_neurons`.

    Args:
        firings: Counts of one layer; classes are added up.

    Returns:
        The mean number over the examples; NaN without examples, and if a pre-activation was NaN or infinite.
    """
    units = firings.fired.shape[1]
    if not firings.is_meaningful:
        return UnitCount(math.nan, units)
    return UnitCount((firings.fired.sum().double() / firings.examples.sum()).item(), units)


def dead_count(firings: Firings) -> UnitCount:
    """Count the units that are active on no example (Cornacchia et al., Fig. 4).

    A unit that is dead on this data may be active on other inputs.

    Args:
        firings: Counts of one layer; classes are added up.

    Returns:
        The number; NaN without examples, and if a pre-activation was NaN or infinite.
    """
    units = firings.fired.shape[1]
    return UnitCount(int((firings.fired.sum(0) == 0).sum()) if firings.is_meaningful else math.nan, units)
