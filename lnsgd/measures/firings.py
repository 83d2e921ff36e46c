"""How often neurons fire: the counts that activity, death and class association are made of."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

# Pre-activations looked at together: more of them leave the caches of a CPU, which takes twice as long.
_AT_ONCE = 2**20


def firing(preactivations: Tensor) -> Tensor:
    """Which units are active: pre-activation > 0. (B, …) to boolean (B, units)."""
    return preactivations.flatten(1) > 0


def nonfinite_preactivations(preactivations: Tensor) -> Tensor:
    """Whether a pre-activation is NaN or infinite, int64 0 or 1: whether such a unit fires means nothing.

    Numbers so large that their sum is beyond single precision count as infinite: one pass over them has to be enough.
    """
    finite = preactivations.sum(dtype=torch.promote_types(preactivations.dtype, torch.float32)).isfinite()
    return (~finite).long()


def count_firings(preactivations: Tensor, members: Tensor) -> Tensor:
    """On how many examples of each group each unit is active.

    Args:
        preactivations: Pre-activations of one layer, shape (B, …); all but the first dimension are units.
        members: 1 where an example is in a group, else 0; shape (B, G), float32.

    Returns:
        Counts (G, units), int64.
    """
    flat = preactivations.flatten(1)
    examples = max(1, _AT_ONCE // max(1, flat.shape[1]))
    counts = torch.zeros(members.shape[1], flat.shape[1], dtype=torch.int64, device=flat.device)
    # 0/1 products summed in float32 are exact up to 2²⁴ examples; autocast would take less precise ones.
    with torch.autocast(flat.device.type, enabled=False):
        for part, groups in zip(flat.split(examples), members.split(examples)):
            counts += (groups.T @ firing(part).float()).long()
    return counts


class Firings(Metric):
    """`count_firings` by class accumulated over batches, exact: integer counts, summed over processes.

    Args:
        num_classes: C; 1 where examples are not told apart, which then may have any labels.
        num_units: Units of the layer (channels × height × width for a convolution).
        options: Of every ``torchmetrics.Metric``.

    Attributes:
        fired: On how many examples of each class each unit was active, shape (C, units), int64.
        examples: Number of examples of each class, shape (C,), int64.
        nonfinite: In how many batches a pre-activation was NaN or infinite; where it is not 0 the counts mean nothing.
    """

    full_state_update = False
    fired: Tensor
    examples: Tensor
    nonfinite: Tensor

    def __init__(self, num_classes: int, num_units: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("fired", torch.zeros(num_classes, num_units, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("examples", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("nonfinite", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preactivations: Tensor, labels: Tensor) -> None:
        """Adds a batch of pre-activations (B, …) with their labels (B, …), int64 where classes are told apart."""
        classes = len(self.examples)
        members = one_hot(labels, classes).float() if classes > 1 else preactivations.new_ones(len(labels), 1).float()
        self.fired += count_firings(preactivations, members)
        self.examples += members.sum(0).long()
        self.nonfinite += nonfinite_preactivations(preactivations)

    def compute(self) -> Tensor:
        """How often each unit fired for each class so far: ``fired``, (C, …)."""
        return self.fired
