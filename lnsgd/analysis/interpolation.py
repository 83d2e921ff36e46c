"""The loss along the straight line between two networks."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lnsgd import rng

BatchNorm = Literal["reestimate", "interpolate"]

Model = TypeVar("Model", bound=nn.Module)


def mixed(first: Mapping[str, Tensor], second: Mapping[str, Tensor], t: float) -> dict[str, Tensor]:
    """(1 − t)·first + t·second, tensor by tensor; what is no floating-point number is taken from the first.

    At t = 0 and t = 1 it is exactly the first and the second.

    Raises:
        ValueError: names or shapes differ.
    """
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise ValueError("weights of different networks cannot be interpolated; their names or shapes differ")
    return {
        name: (1 - t) * value + t * second[name] if value.is_floating_point() else value
        for name, value in first.items()
    }


class Line(Generic[Model]):
    """The networks at evenly spaced points of the straight line between two, both ends included.

    Args:
        first: The network at t = 0. It stays as it is, as does the other.
        second: The network at t = 1.
        points: How many, at least 2.
        batch_norm: Running statistics of batch normalization. ``reestimate``: between the ends they are the cumulative
            averages over the data, as those of the ends say nothing of activations in between (Jordan et al. 2023,
            "REPAIR"); the ends keep their own. ``interpolate``: as the weights.
        data: Batches (inputs, labels) on the models' device, for that.

    Raises:
        ValueError: fewer than 2 points, or an unknown ``batch_norm``.
    """

    def __init__(
        self, first: Model, second: Model, points: int, batch_norm: BatchNorm, data: Iterable[tuple[Tensor, Tensor]]
    ) -> None:
        check_line(points, batch_norm)
        self.ts = [number / (points - 1) for number in range(points)]
        self._ends = first.state_dict(), second.state_dict()
        self._between = copy.deepcopy(first)
        self._reestimates = batch_norm == "reestimate" and _normalizes(first)
        self._data = data

    def network(self, t: float) -> Model:
        """The network at a point; it is valid until the next is asked for.

        Raises:
            ValueError: the ends are of different structure.
        """
        self._between.load_state_dict(mixed(*self._ends, t))
        if self._reestimates and 0 < t < 1:
            with rng.preserved():
                update_bn(((inputs, labels) for inputs, labels in self._data), self._between)
        return self._between


def check_line(points: int, batch_norm: str) -> None:
    """Raises ValueError where arguments of `Line` make no sense for any network."""
    if points < 2:
        raise ValueError(f"points = {points}; the line from one network to the other has at least 2")
    if batch_norm not in get_args(BatchNorm):
        raise ValueError(f"batch_norm = {batch_norm}; choose one of {', '.join(get_args(BatchNorm))}")


def _normalizes(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def barrier(values: Sequence[float]) -> float:
    """Largest height above the straight line between the ends: max_t v(t) − (1 − t)·v(0) − t·v(1).

    Entezari et al. (2022), Definition 2.1. At least 0, its value at the ends; NaN where a value is not finite.

    Args:
        values: At evenly spaced points, both ends included.

    Example:
        >>> barrier([1.0, 4.0, 3.0])
        2.0
    """
    heights = torch.tensor(values, dtype=torch.float64)
    line = torch.lerp(heights[0], heights[-1], torch.linspace(0, 1, len(values), dtype=torch.float64))
    above = heights - line
    return max(0.0, above.max().item()) if heights.isfinite().all() else float("nan")
