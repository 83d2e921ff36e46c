"""How far the weights have travelled."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lnsgd.measures.curvature.problem import trainable


@dataclass(frozen=True)
class Distance:
    """‖θ − θ₀‖₂ over all tensors together and for each alone.

    Attributes:
        total: Of all trainable parameters as one vector.
        per_tensor: By name of the parameter; their squares sum to that of the total.
    """

    total: float
    per_tensor: dict[str, float]


def trainable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that need a gradient, by name, detached; they share memory with the model.

    Args:
        model: Any module.

    Raises:
        ValueError: the model has none.
    """
    return {name: p.detach() for name, p in trainable(model).items()}


def distance_from_init(parameters: Mapping[str, Tensor], init: Mapping[str, Tensor]) -> Distance:
    """Distance from initialization ‖θ − θ₀‖₂ (Nagarajan and Kolter), accumulated in float64.

    Args:
        parameters: θ by name, as from `trainable_parameters`.
        init: θ₀ by name; names that are not in ``parameters`` are ignored.

    Raises:
        ValueError: a tensor of θ is missing from θ₀ or has another shape there.

    Example:
        >>> import torch
        >>> distance_from_init({"w": torch.tensor([3.0, 4.0])}, {"w": torch.zeros(2)}).total
        5.0
    """
    squares: dict[str, float] = {}
    for name, value in parameters.items():
        if name not in init:
            raise ValueError(f"the initial weights have no tensor {name!r}; they belong to another model")
        start = init[name]
        if start.shape != value.shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, but {tuple(start.shape)} in the initial weights")
        squares[name] = (value.double() - start.to(value.device).double()).square().sum().item()
    per_tensor = {name: square**0.5 for name, square in squares.items()}
    return Distance(sum(squares.values()) ** 0.5, per_tensor)
