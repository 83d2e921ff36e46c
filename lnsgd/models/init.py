"""Initializations of a linear layer.

An initializer fills weight (out, in) and bias (out,) of one layer in place. It draws from the generator that it is
given, or from torch's global generator (see `lnsgd.rng.forked`) if it is given ``None``.
"""

from abc import ABC, abstractmethod
from math import sqrt

import torch
from torch import nn


class Initializer(ABC):
    """Interface of an initializer; any subclass can be named in a config by its class path."""

    @abstractmethod
    def __call__(self, layer: nn.Linear, generator: torch.Generator | None = None) -> None:
        """Fill the layer's weight and bias in place."""


class TorchDefault(Initializer):
    """PyTorch's default: weight and bias are U[−1/√fan_in, 1/√fan_in]."""

    def __call__(self, layer: nn.Linear, generator: torch.Generator | None = None) -> None:
        """Fill the layer's weight and bias in place."""
        Uniform(1 / sqrt(layer.in_features), biases=True)(layer, generator)


class XavierNormal(Initializer):
    """Weight N(0, 2/(fan_in + fan_out)), bias 0 (Glorot and Bengio; used by Nagarajan and Kolter)."""

    def __call__(self, layer: nn.Linear, generator: torch.Generator | None = None) -> None:
        """Fill the layer's weight and bias in place."""
        nn.init.xavier_normal_(layer.weight, generator=generator)
        _zero_bias(layer)


class HeNormal(Initializer):
    """Weight N(0, 2/fan_in), bias 0 (He et al.)."""

    def __call__(self, layer: nn.Linear, generator: torch.Generator | None = None) -> None:
        """Fill the layer's weight and bias in place."""
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        _zero_bias(layer)


class Uniform(Initializer):
    """Weight U[−bound, bound]; bias 0, or from that interval too.

    Args:
        bound: Half-width of the interval; √3 gives unit variance (the default of Cornacchia et al.).
        biases: Whether biases are drawn too.

    Raises:
        ValueError: bound not positive.
    """

    def __init__(self, bound: float, biases: bool = False) -> None:
        if not bound > 0:
            raise ValueError(f"Uniform: bound = {bound}; the half-width of the interval must be > 0")
        self.bound = bound
        self.biases = biases

    def __call__(self, layer: nn.Linear, generator: torch.Generator | None = None) -> None:
        """Fill the layer's weight and bias in place."""
        nn.init.uniform_(layer.weight, -self.bound, self.bound, generator=generator)
        if layer.bias is None:
            return
        if self.biases:
            nn.init.uniform_(layer.bias, -self.bound, self.bound, generator=generator)
        else:
            nn.init.zeros_(layer.bias)


class Normal(Initializer):
    """Weight N(0, std²); bias 0, or from that distribution too.

    Args:
        std: Standard deviation.
        biases: Whether biases are drawn too.

    Raises:
        ValueError: std not positive.
    """

    def __init__(self, std: float, biases: bool = False) -> None:
        if not std > 0:
            raise ValueError(f"Normal: std = {std}; the standard deviation must be > 0")
        self.std = std
        self.biases = biases

    def __call__(self, layer: nn.Linear, generator: torch.Generator | None = None) -> None:
        """Fill the layer's weight and bias in place."""
        nn.init.normal_(layer.weight, std=self.std, generator=generator)
        if layer.bias is None:
            return
        if self.biases:
            nn.init.normal_(layer.bias, std=self.std, generator=generator)
        else:
            nn.init.zeros_(layer.bias)


class Constant(Initializer):
    """Sets all weights to one value and biases to 0; for an output layer that stays fixed (ones in Gatmiry et al.).

    Args:
        value: Value of all weights.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, layer: nn.Linear, generator: torch.Generator | None = None) -> None:
        """Fill the layer's weight and bias in place. Draws nothing."""
        nn.init.constant_(layer.weight, self.value)
        _zero_bias(layer)


class AlternatingSigns(Initializer):
    """Weights +1, −1, +1, … along the inputs, bias 0; for an output layer that stays fixed (Cornacchia et al.)."""

    def __call__(self, layer: nn.Linear, generator: torch.Generator | None = None) -> None:
        """Fill the layer's weight and bias in place. Draws nothing."""
        signs = 1 - 2 * (torch.arange(layer.in_features) % 2)
        with torch.no_grad():
            layer.weight.copy_(signs.to(layer.weight).expand_as(layer.weight))
        _zero_bias(layer)


def _zero_bias(layer: nn.Linear) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
