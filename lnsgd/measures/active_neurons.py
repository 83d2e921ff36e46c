"""How many neurons fire."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lnsgd.measures.firings import count_firings, firing, nonfinite_preactivations


def active_neurons(preactivations: Tensor) -> float:
    """Typical number of active neurons: the mean over examples of the number of active units.

    NaN where a pre-activation is NaN or infinite.

    Args:
        preactivations: Pre-activations of one layer, shape (B, …); all but the first dimension are units.

    Example:
        >>> active_neurons(torch.tensor([[1.0, -1.0, 2.0], [-1.0, -1.0, 0.5]]))
        1.5
    """
    if nonfinite_preactivations(preactivations):
        return math.nan
    return firing(preactivations).sum(1).double().mean().item()


@dataclass  # not frozen: torchmetrics copies results field by field
class ActiveCount:
    """Typical number of active neurons of one layer, as a count and as a fraction of its units."""

    count: float
    fraction: float


def active_count(fired: Tensor, examples: Tensor) -> ActiveCount:
    """`active_neurons` from counts.

    Args:
        fired: On how many examples each unit was active, shape (units,), int64.
        examples: Number of examples, int64; NaN results from none.
    """
    count = (fired.sum().double() / examples).item()
    return ActiveCount(count, count / len(fired))


class ActiveNeurons(Metric):
    """`active_neurons` accumulated over batches, exact: integer counts, summed over processes.

    Args:
        num_units: Units of the layer (channels × height × width for a convolution).
        options: Of every ``torchmetrics.Metric``.

    Attributes:
        fired: On how many examples each unit was active, shape (units,), int64.
        examples: Number of examples seen, int64.
        nonfinite: In how many batches a pre-activation was NaN or infinite, int64.
    """

    full_state_update = False
    fired: Tensor
    examples: Tensor
    nonfinite: Tensor

    def __init__(self, num_units: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("fired", torch.zeros(num_units, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("examples", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("nonfinite", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preactivations: Tensor) -> None:
        """Adds a batch of pre-activations, shape (B, …)."""
        everyone = torch.ones(len(preactivations), 1, device=preactivations.device)
        self.fired += count_firings(preactivations, everyone)[0]
        self.examples += len(preactivations)
        self.nonfinite += nonfinite_preactivations(preactivations)

    def compute(self) -> ActiveCount:
        """Count and fraction over all examples so far; NaN before the first, and where a number was not finite."""
        if self.nonfinite:
            return ActiveCount(math.nan, math.nan)
        return active_count(self.fired, self.examples)
