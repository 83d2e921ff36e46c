"""A network with layers that have a state: random numbers, running statistics."""

from torch import Tensor, nn


class Dropped(nn.Module):
    """784 → width → 10 with batch normalization and dropout."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(784, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))
