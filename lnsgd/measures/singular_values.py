"""How many directions matrices of weights and of features really have."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.sites import activation_sites, names_of_calls


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values σ₁ ≥ σ₂ ≥ … of a matrix (a, b), shape (min(a, b),), in float64.

    They are NaN where an entry is not finite, as in a network that is about to diverge.

    Args:
        matrix: (a, b), of any type of floating-point numbers.

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

    Returns:
        By site as it is called: a module that is called more than once is several, see `names_of_calls`.

    Raises:
        ValueError: a pattern that matches no module, no examples, or a site that not every batch calls as often.
    """
    found: defaultdict[tuple[str, int], list[Tensor]] = defaultdict(list)
    calls: Counter[str] = Counter()

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            found[name, calls[name]].append(output.detach().flatten(1))

        return hook

    with ExitStack() as stack, torch.no_grad(), evaluation_mode(model):
        for name, site in activation_sites(model, layers).items():
            stack.callback(site.register_forward_hook(keep(name)).remove)
        batches = 0
        for inputs, _ in data:
            calls.clear()
            model(inputs)
            batches += 1
    if not batches:
        raise ValueError("no examples to take features of; the data is empty")
    if not found:
        raise ValueError("none of the activation sites is called in a forward pass; choose others by `layers`")
    for (name, _), rows in found.items():
        if len(rows) < batches:
            raise ValueError(f"{name} is not called as often for every batch; leave it out of `layers`")
    return names_of_calls({site: torch.cat(rows) for site, rows in found.items()})
