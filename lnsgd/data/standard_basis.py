"""The unit vectors."""

from typing import Any

import torch

from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors, draw_subset


class StandardBasis(TensorData):
    """Inputs e_1, …, e_d, one example each, with labels ±1 that mean nothing (Cornacchia et al., Theorems 3 and 4).

    Training, validation and test set are the same. For pure noise train with
    `lnsgd.label_noise.UniformNoise` at p = 1.

    Args:
        dimension: d.
        batch_size: Examples in a batch, see `TensorData`.
        replacement: Draw the vector of each step uniformly from all d vectors.
        options: See `TensorData`.

    Raises:
        ValueError: d below 1; on setup, a subset larger than d.
    """

    num_classes = 2

    def __init__(self, dimension: int, batch_size: int | None = 1, replacement: bool = True, **options: Any) -> None:
        if dimension < 1:
            raise ValueError(f"StandardBasis: dimension = {dimension}; it must be at least 1")
        super().__init__(batch_size=batch_size, replacement=replacement, **options)
        self.dimension = dimension

    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Return the unit vectors as training, validation and test set; a subset of them for training."""
        data = LabelledTensors(torch.eye(self.dimension), torch.zeros(self.dimension, dtype=torch.int64))
        train = data if self.subset is None else draw_subset(data, self.subset, self.seed)
        return {"train": train, "val": data, "test": data}
