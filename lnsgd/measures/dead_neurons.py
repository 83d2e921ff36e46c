"""How many neurons never fire."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lnsgd.measures.firings import count_firings, nonfinite_preactivations


def dead_count(fired: Tensor) -> Tensor:
    """Number of units that never fired, int64, given on how many examples each was active, shape (units,)."""
    return (fired == 0).sum()


class DeadNeurons(Metric):
    """Number of units of one layer that are active on no example.

    A unit is active on an example if its pre-activation is > 0 there; that it is active on no
    example of the data says nothing of other inputs. Exact; sums over processes.

    Args:
        num_units: Units of the layer.
        options: Of every ``torchmetrics.Metric``.

    Example:
        >>> metric = DeadNeurons(3)
        >>> metric.update(torch.tensor([[1.0, -1.0, 0.0], [2.0, 3.0, -1.0]]))
        >>> metric.compute().item()
        1
    """

    full_state_update = False
    fired: Tensor
    nonfinite: Tensor

    def __init__(self, num_units: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("fired", torch.zeros(num_units, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("nonfinite", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preactivations: Tensor) -> None:
        """Adds a batch of pre-activations (B, …), one number per unit."""
        everyone = torch.ones(len(preactivations), 1, device=preactivations.device)
        self.fired += count_firings(preactivations, everyone)[0]
        self.nonfinite += nonfinite_preactivations(preactivations)

    def compute(self) -> Tensor:
        """Number of units that never fired, int64; NaN where a pre-activation was NaN or infinite."""
        if self.nonfinite:
            return self.fired.new_full((), torch.nan, dtype=torch.float64)
        return dead_count(self.fired)
