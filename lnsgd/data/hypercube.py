"""Points on one of two nested cubes."""

from typing import Any

import torch
from torch import Tensor

from lnsgd.data.synthetic import SyntheticData
from lnsgd.data.tensors import LabelledTensors


class Hypercube(SyntheticData):
    """Points on the boundary of one of two nested cubes (Cornacchia et al., section 6.1).

    Class 1 (y = +1) is uniform on the boundary of the outer cube, ‖x‖∞ = 1, class 0 (y = −1) on the boundary of the
    inner cube, ‖x‖∞ = 1 − ε; each with probability ½. A point of a boundary has one coordinate, uniform
    among d, at ± the radius and the others uniform between.

    Args:
        dimension: d.
        epsilon: ε, in (0, 1).
        train_size: Number of training examples; 4d by default, as in the paper.
        test_size: Number of validation examples, and of test examples.
        options: See `SyntheticData`.

    Raises:
        ValueError: d below 1, ε outside (0, 1), a size below 1.
    """

    num_classes = 2

    def __init__(
        self,
        dimension: int = 60,
        epsilon: float = 0.3,
        train_size: int | None = None,
        test_size: int = 10_000,
        **options: Any,
    ) -> None:
        if dimension < 1:
            raise ValueError(f"Hypercube: dimension = {dimension}; it must be at least 1")
        if not 0 < epsilon < 1:
            raise ValueError(f"Hypercube: epsilon = {epsilon}; it must be between 0 and 1")
        super().__init__(4 * dimension if train_size is None else train_size, test_size, **options)
        self.dimension = dimension
        self.epsilon = epsilon

    def draw(self, size: int, generator: torch.Generator) -> LabelledTensors:
        """Draw independent examples."""
        labels = torch.randint(2, (size,), generator=generator)
        radii = torch.where(labels == 1, 1.0, 1 - self.epsilon).to(torch.get_default_dtype())
        return LabelledTensors(radii.unsqueeze(1) * cube_boundary(size, self.dimension, generator), labels)


def cube_boundary(size: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Draw uniform points (size, dimension) on the boundary of [−1, 1]^d."""
    points = 2 * torch.rand(size, dimension, generator=generator) - 1
    coordinate = torch.randint(dimension, (size, 1), generator=generator)
    side = 2 * torch.randint(2, (size, 1), generator=generator) - 1
    return points.scatter_(1, coordinate, side.to(points.dtype))
