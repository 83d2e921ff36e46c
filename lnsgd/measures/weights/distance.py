"""Distance of weights from their initial values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from lnsgd import compat
from lnsgd.measures.precision import in_double
from lnsgd.measures.weights.in_use import weights_in_use

Weights = nn.Module | Mapping[str, Tensor]
"""A network, or tensors by name such as its ``state_dict``."""

# Buffers of the normalization layers of torch, by the last part of their names in a ``state_dict``.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Distance:
    """Euclidean distance ‖θ − θ₀‖₂ of weights from their initial values.

    Attributes:
        total: Distance of all weights as one vector.
        per_tensor: Distance of each tensor by name of the parameter, as `weights_in_use` names it; their squares sum to
            the square of ``total``.
    """

    total: float
    per_tensor: dict[str, float] = field(repr=False)


def distance_from_init(parameters: Weights, init: Weights) -> Distance:
    """Compute the distance from initialization ‖θ − θ₀‖₂ (Nagarajan and Kolter), accumulated in float64.

    The distance is over all weights of the network, whether or not they need a gradient now: a frozen one adds 0 while
    it keeps its value, so the distance is of the same weights throughout a run that freezes and unfreezes layers. Of
    a network they are `weights_in_use`. Of a complex weight absolute values are taken.

    Args:
        parameters: θ: a network; or tensors by name, such as its ``state_dict``.
        init: θ₀: a network of the same structure, or tensors by name; names that are not in ``parameters`` are ignored.

    Buffers do not count. If one of the two is a network, it says which tensors are buffers; of two mappings, tensors
    that are not floating-point numbers, and those called ``running_mean``, ``running_var`` or ``num_batches_tracked``.

    Raises:
        ValueError: a tensor of θ is missing from θ₀ or has another shape there; there is no weight.

    Example:
        >>> import torch
        >>> distance_from_init({"w": torch.tensor([3.0, 4.0])}, {"w": torch.zeros(2)}).total
        5.0
        >>> net = nn.Linear(2, 1)
        >>> distance_from_init(net, net.state_dict()).total
        0.0
    """
    structure = next((given for given in (parameters, init) if isinstance(given, nn.Module)), None)
    now, start = _weights(parameters, structure), _weights(init, structure)
    if not now:
        raise ValueError("distance_from_init: there is no weight to measure; give a network with parameters")
    squares: dict[str, float] = {}
    for name, value in now.items():
        if name not in start:
            raise ValueError(
                f"the initial weights have no tensor {name!r}; they belong to another model: give those of this one"
            )
        initial = start[name]
        if initial.shape != value.shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, but {tuple(initial.shape)} in the initial weights")
        squares[name] = (in_double(value) - in_double(initial.to(value.device))).abs().square().sum().item()
    per_tensor = {name: square**0.5 for name, square in squares.items()}
    return Distance(sum(squares.values()) ** 0.5, per_tensor)


def _weights(given: Weights, structure: nn.Module | None) -> dict[str, Tensor]:
    """Return the weights among tensors, by the names that the network of the given structure has for them."""
    if isinstance(given, nn.Module):
        return weights_in_use(given)
    if structure is not None:
        return weights_in_use(structure, given)
    return {compat.plain_name(name): value for name, value in given.items() if not _is_buffer(name, value)}


def _is_buffer(name: str, value: Tensor) -> bool:
    return name.rpartition(".")[2] in _BUFFERS or not (value.is_floating_point() or value.is_complex())
