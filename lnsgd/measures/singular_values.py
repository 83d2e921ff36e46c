"""How many directions matrices of weights and of features really have."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.sites import activation_sites


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values σ₁ ≥ σ₂ ≥ … of a matrix (a, b), shape (min(a, b),), in float64.

    They are NaN where an entry is not finite, as in a network that is about to diverge.

    Raises:
        ValueError: not a matrix.

    Example:
        >>> singular_values(torch.tensor([[0.0, 3.0], [4.0, 0.0]]))
        tensor([4., 3.], dtype=torch.float64)
    """
    if matrix.ndim != 2:
        raise ValueError(f"singular_values: shape {tuple(matrix.shape)}; give a matrix, which has two dimensions")
    double = matrix.detach().double()
    if not double.isfinite().all():
        return double.new_full((min(double.shape),), torch.nan)
    return torch.linalg.svdvals(double)


def effective_rank(values: Sequence[float] | Tensor, tolerance: float = 0.01) -> float:
    """Number of singular values above ``tolerance`` times the largest; 0 for a matrix of zeros.

    The rank that a matrix has but for noise. It depends on the tolerance unless there is a gap between singular
    values: look at them too.

    Args:
        values: Singular values, in any order.
        tolerance: In (0, 1).

    Returns:
        A whole number, or NaN where a value is not finite.

    Raises:
        ValueError: a tolerance outside (0, 1).

    Example:
        >>> effective_rank([5.0, 0.5, 1e-3])
        2.0
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"effective_rank: tolerance = {tolerance} is outside (0, 1); it is relative to the largest")
    values = torch.as_tensor(values, dtype=torch.float64)
    return float((values > tolerance * values.max()).sum()) if values.isfinite().all() else math.nan


def features(
    model: nn.Module, data: Iterable[tuple[Tensor, Tensor]], layers: Sequence[str] | None = None
) -> Mapping[str, Tensor]:
    """What each activation site gives on a data set: matrices (n, units), one row per example.

    Args:
        model: Any module; it runs in eval mode, and its modes and the random state are put back.
        data: Batches of inputs (B, …) and labels, on the model's device.
        layers: Shell-style patterns of module names; by default all activation modules.

    Raises:
        ValueError: a pattern that matches no module, or no examples.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in activation_sites(model, layers)}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: found[name].append(output.detach().flatten(1))

    with ExitStack() as stack, torch.no_grad(), evaluation_mode(model):
        for name, site in activation_sites(model, layers).items():
            stack.callback(site.register_forward_hook(keep(name)).remove)
        for inputs, _ in data:
            model(inputs)
    if not all(found.values()):
        raise ValueError("no examples to take features of; the data is empty")
    return {name: torch.cat(rows) for name, rows in found.items()}
