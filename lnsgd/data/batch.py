"""One process's share of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """What a `lnsgd.data.DeviceLoader` yields.

    Process r of W holds examples r, r + W, r + 2W, … of the global batch.

    Attributes:
        inputs: Shape (B, …), floating.
        labels: Shape (B,), int64.
        global_size: Examples of the batch over all processes.
    """

    inputs: Tensor
    labels: Tensor
    global_size: int

    @classmethod
    def of(cls, batch: "Batch | Sequence[Tensor]", world_size: int) -> "Batch":
        """A `Batch` as it is, or ``(inputs, labels)`` of any loader that gives all processes equal shares."""
        return batch if isinstance(batch, cls) else cls(batch[0], batch[1], len(batch[1]) * world_size)
