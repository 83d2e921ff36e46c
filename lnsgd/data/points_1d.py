"""Points on a zigzag."""

from typing import Any

import torch

from lnsgd.data.synthetic import SyntheticData
from lnsgd.data.tensors import LabelledTensors

# Inputs at which the zigzag turns, and its slope before the first turn.
TURNS, SLOPE = (-1 / 3, 1 / 3), 2.0


class Points1D(SyntheticData):
    """Equally spaced inputs on [−1, 1] with real targets on a zigzag (for Blanc et al., Fig. 2; the points are chosen).

    The zigzag has the slopes 2, −2, 2 with turns at ∓1/3, and goes through the origin. Four of the twelve points are on
    each of its segments and none is at a turn, so that every interpolation has to turn, but may do so in many places.
    Only the noise of ``label_std`` is random. Validation and test set are one fine grid.

    Args:
        train_size: Number of training points.
        test_size: Number of points of the grid.
        options: See `SyntheticData`.

    Raises:
        ValueError: a size below 1.
    """

    num_classes = None

    def __init__(self, train_size: int = 12, test_size: int = 1001, **options: Any) -> None:
        super().__init__(train_size, test_size, **options)

    def draw(self, size: int, generator: torch.Generator) -> LabelledTensors:
        """Return equidistant points of the zigzag, the same at each call."""
        inputs = torch.linspace(-1, 1, size, dtype=torch.float64).unsqueeze(1)
        left, right = TURNS
        targets = SLOPE * torch.where(inputs.abs() <= right, -inputs, inputs - 2 * torch.where(inputs > 0, right, left))
        kind = torch.get_default_dtype()
        return LabelledTensors(inputs.to(kind), targets.to(kind))
