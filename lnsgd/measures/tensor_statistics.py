"""How large the weights are."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorStatistics:
    """Frobenius norm of a tensor, and mean and largest of its entries.

    Attributes:
        norm: √Σθ².
        mean: Of the entries.
        largest: The maximum of the entries, with its sign.
    """

    norm: float
    mean: float
    largest: float


def tensor_statistics(parameters: Mapping[str, Tensor]) -> dict[str, TensorStatistics]:
    """Of every tensor, its Frobenius norm √Σθ², and mean and maximum of its entries, in float64.

    They are NaN where an entry is not finite. The mean and maximum of a bias say whether neurons are being switched off
    (Cornacchia et al., section 4).

    Args:
        parameters: Tensors by name.

    Example:
        >>> import torch
        >>> tensor_statistics({"b": torch.tensor([3.0, -4.0])})
        {'b': TensorStatistics(norm=5.0, mean=-0.5, largest=3.0)}
    """
    double = {name: value.detach().double() for name, value in parameters.items()}
    return {name: _statistics(value if value.isfinite().all() else value * torch.nan) for name, value in double.items()}


def _statistics(value: Tensor) -> TensorStatistics:
    return TensorStatistics(value.norm().item(), value.mean().item(), value.max().item())
