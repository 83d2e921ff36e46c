"""One labelled point."""

from typing import Any

import torch

from lnsgd import rng
from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors, draw_subset


class SinglePoint(TensorData):
    """One input x with ‖x‖ = 1, of uniform direction, and its label y (Blanc et al., Theorem 3).

    Training, validation and test set are the same. The direction is keyed by (seed, "data").

    Args:
        dimension: d.
        label: y, a real target.
        batch_size: Examples in a batch, see `TensorData`.
        options: See `TensorData`.

    Raises:
        ValueError: d below 1; on setup, a subset of more than one example.
    """

    num_classes = None

    def __init__(self, dimension: int = 3, label: float = 1.0, batch_size: int | None = 1, **options: Any) -> None:
        if dimension < 1:
            raise ValueError(f"SinglePoint: dimension = {dimension}; it must be at least 1")
        super().__init__(batch_size=batch_size, **options)
        self.dimension = dimension
        self.label = label

    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Return the point as training, validation and test set."""
        direction = torch.randn(1, self.dimension, dtype=torch.float64, generator=rng.generator(self.seed, "data"))
        inputs = (direction / direction.norm()).to(torch.get_default_dtype())
        data = LabelledTensors(inputs, torch.full((1, 1), float(self.label)))
        train = data if self.subset is None else draw_subset(data, self.subset, self.seed)
        return {"train": train, "val": data, "test": data}
