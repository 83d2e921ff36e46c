"""Standard normal inputs with random labels."""

from typing import Any

import torch

from lnsgd.data.synthetic import SyntheticData
from lnsgd.data.tensors import LabelledTensors


class GaussianInputs(SyntheticData):
    """x ~ N(0, I), labels ±1 uniform and independent of x (Cornacchia et al., section 4).

    For pure noise train with `lnsgd.label_noise.UniformNoise` at p = 1. The paper draws a new x at every step; here
    steps draw from a training set that is too large to be memorized.

    Args:
        dimension: d.
        train_size: Number of training examples.
        test_size: Number of validation examples, and of test examples.
        options: See `SyntheticData`.

    Raises:
        ValueError: d or a size below 1.
    """

    num_classes = 2

    def __init__(self, dimension: int = 30, train_size: int = 100_000, test_size: int = 10_000, **options: Any) -> None:
        if dimension < 1:
            raise ValueError(f"GaussianInputs: dimension = {dimension}; it must be at least 1")
        super().__init__(train_size, test_size, **options)
        self.dimension = dimension

    def draw(self, size: int, generator: torch.Generator) -> LabelledTensors:
        """Draw independent examples."""
        inputs = torch.randn(size, self.dimension, generator=generator)
        return LabelledTensors(inputs, torch.randint(2, (size,), generator=generator))
