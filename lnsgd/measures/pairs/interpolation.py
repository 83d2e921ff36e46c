"""The straight line between two networks, and the barrier of a loss on it."""

import copy
from collections.abc import Mapping, Sequence
from typing import Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lnsgd import compat, rng
from lnsgd.measures.forward import Batches, CalledNetwork, OutputsFunction, outputs_of

BatchNorm = Literal["reestimate", "interpolate"]
"""Whether running statistics of batch normalization are computed again from data, or interpolated like weights."""

Model = TypeVar("Model", bound=nn.Module)


def mixed(first: Mapping[str, Tensor], second: Mapping[str, Tensor], t: float) -> dict[str, Tensor]:
    """Interpolate tensors: (1 − t)·first + t·second.

    Args:
        first: Tensors by name; integers are not interpolated but taken from here.
        second: Tensors by name.
        t: Position on the line; the result is exactly the first tensors at 0 and the second at 1.

    Raises:
        ValueError: names or shapes differ.

    Example:
        >>> mixed({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
        {'w': tensor([1.])}
    """
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise ValueError("weights of different networks cannot be interpolated; their names or shapes differ")
    return {
        name: (1 - t) * value + t * second[name] if value.is_floating_point() else value
        for name, value in first.items()
    }


class Line(Generic[Model]):
    """Networks at evenly spaced points of the straight line between two networks, both ends included.

    Args:
        first: The network at t = 0. It is not changed.
        second: The network at t = 1. It is not changed.
        points: Number of points, at least 2.
        batch_norm: Running statistics of batch normalization. ``reestimate``: between the ends they are cumulative
            averages over the data, because the statistics of the ends say nothing about activations in between (Jordan
            et al., 2023, "REPAIR"); the ends keep their own. ``interpolate``: they are interpolated like weights.
        data: Batches (inputs, labels) on the models' device, from which statistics are reestimated.
        outputs: How the networks are called, see `lnsgd.measures.outputs_of`.

    Raises:
        ValueError: fewer than 2 points, or an unknown ``batch_norm``.
    """

    def __init__(
        self,
        first: Model,
        second: Model,
        points: int,
        batch_norm: BatchNorm,
        data: Batches,
        *,
        outputs: OutputsFunction = outputs_of,
    ) -> None:
        check_line(points, batch_norm)
        self.ts = [number / (points - 1) for number in range(points)]
        self._ends = first.state_dict(), second.state_dict()
        self._between = copy.deepcopy(first)
        self._reestimates = batch_norm == "reestimate" and _normalizes(first)
        self._data = data
        self._outputs = outputs

    def network(self, t: float) -> Model:
        """Return the network at a point of the line; the next call changes it.

        Args:
            t: Position on the line, 0 to 1.

        Raises:
            ValueError: the ends have different structures.
        """
        self._between.load_state_dict(mixed(*self._ends, t))
        if self._reestimates and 0 < t < 1:
            with rng.preserved():
                update_bn(((inputs,) for inputs, _ in self._data), CalledNetwork(self._between, self._outputs))
        return self._between


def check_line(points: int, batch_norm: str) -> None:
    """Check arguments of `Line` before there is a network.

    Args:
        points: See `Line`.
        batch_norm: See `Line`.

    Raises:
        ValueError: fewer than 2 points, or an unknown ``batch_norm``.
    """
    if points < 2:
        raise ValueError(f"points = {points}; the line from one network to the other has at least 2")
    if batch_norm not in get_args(BatchNorm):
        raise ValueError(f"batch_norm = {batch_norm}; choose one of {', '.join(get_args(BatchNorm))}")


def _normalizes(model: nn.Module) -> bool:
    return any(isinstance(module, compat.batch_norm_base()) for module in model.modules())


def barrier(values: Sequence[float]) -> float:
    """Compute the largest height above the straight line between the ends: max_t v(t) − (1 − t)·v(0) − t·v(1).

    Entezari et al. (2022), Definition 2.1.

    Args:
        values: Values v at evenly spaced points, both ends included.

    Returns:
        The barrier in the units of the values, at least 0; NaN if a value is not finite.

    Example:
        >>> barrier([1.0, 4.0, 3.0])
        2.0
    """
    heights = torch.tensor(values, dtype=torch.float64)
    line = torch.lerp(heights[0], heights[-1], torch.linspace(0, 1, len(values), dtype=torch.float64))
    above = heights - line
    return max(0.0, above.max().item()) if heights.isfinite().all() else float("nan")
