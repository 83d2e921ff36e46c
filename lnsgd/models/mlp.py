"""Fully connected networks."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lnsgd.models.activations import CubicPlusLinear
from lnsgd.models.init import Initializer, TorchDefault

ActivationName = Literal["relu", "leaky_relu", "tanh", "logistic", "cubic"]

_ACTIVATIONS: dict[str, Callable[[float], nn.Module]] = {
    "relu": lambda nu: nn.ReLU(),
    "leaky_relu": lambda nu: nn.LeakyReLU(),
    "tanh": lambda nu: nn.Tanh(),
    "logistic": lambda nu: nn.Sigmoid(),
    "cubic": CubicPlusLinear,
}


class MLP(nn.Module):
    """A fully connected network: linear layers with an activation after each except the last.

    Linear layers are ``layers.0``, ``layers.1``, …; every activation site is a module of its own,
    ``activations.0``, ``activations.1``, …, whose input is the pre-activation of that layer.

    Args:
        widths: Units per layer, input and output included: ``[784, 600, 10]`` has 600 hidden units.
        bias: Whether layers have biases.
        activation: ``relu``, ``leaky_relu`` (slope 0.01 below zero), ``tanh``, ``logistic`` (the sigmoid 1/(1+e⁻ᶻ)) or
            ``cubic`` (z³ + νz).
        nu: Coefficient ν of the cubic activation; it has no effect on the others.
        init: Initializer of every layer, or a list with one initializer per layer; by default `TorchDefault`.
        train_layers: Indices of the linear layers that are trained (negative indices count from the last); the other
            layers keep their initial weights. By default all layers are trained.
        skip: Whether inputs also reach the outputs directly, by a linear map ``skip`` without bias that starts at zero.
            It belongs to the last layer: both are trained, or neither is (the "linear and constant unit" of Blanc et
            al. is this map and the last layer's bias).

    Raises:
        ValueError: fewer than two widths, a width below 1, an unknown activation, a list of initializers of the wrong
            length, or an index of a layer that does not exist.

    Example:
        >>> net = MLP([784, 600, 10])
        >>> net(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        widths: Sequence[int],
        bias: bool = True,
        activation: ActivationName = "relu",
        nu: float = 0.1,
        init: Initializer | Sequence[Initializer] | None = None,
        train_layers: Sequence[int] | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        widths = list(widths)
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"MLP: widths = {widths}; give at least input and output width, each >= 1")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"MLP: activation = {activation!r} is unknown; choose one of {', '.join(_ACTIVATIONS)}")
        self.widths = widths
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias) for n_in, n_out in pairwise(widths)
        )
        self.skip = nn.utils.skip_init(nn.Linear, widths[0], widths[-1], bias=False) if skip else None
        self.activations = nn.ModuleList(_ACTIVATIONS[activation](nu) for _ in widths[2:])
        one = TorchDefault() if init is None else init
        self._initializers = [one] * len(self.layers) if isinstance(one, Initializer) else list(one)
        if len(self._initializers) != len(self.layers):
            raise ValueError(
                f"MLP: {len(self._initializers)} initializers for {len(self.layers)} layers; give one, or one per layer"
            )
        self.reset_parameters()
        self._freeze_all_but(train_layers)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, layer by layer from the input on; the weights of ``skip`` become zero.

        Args:
            generator: Source of randomness; by default torch's global generator.
        """
        for layer, initialize in zip(self.layers, self._initializers):
            assert isinstance(layer, nn.Linear)
            initialize(layer, generator)
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)

    def _freeze_all_but(self, train_layers: Sequence[int] | None) -> None:
        if train_layers is None:
            return
        depth = len(self.layers)
        wrong = [i for i in train_layers if not -depth <= i < depth]
        if wrong or not train_layers:
            raise ValueError(
                f"MLP: train_layers = {list(train_layers)}; give one or more of 0 to {depth - 1} (or -{depth} to -1)"
            )
        trained = {i % depth for i in train_layers}
        for i, layer in enumerate(self.layers):
            layer.requires_grad_(i in trained)
        if self.skip is not None:
            self.skip.requires_grad_(depth - 1 in trained)

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs (B, C) of inputs (B, …), which are flattened.

        Raises:
            ValueError: inputs of another size than the first width.
        """
        x = x.flatten(1)
        if x.shape[1] != self.widths[0]:
            raise ValueError(f"MLP: widths = {self.widths}, but inputs have {x.shape[1]} numbers; set the first so")
        hidden = x
        for layer, activation in zip(self.layers, self.activations):
            hidden = activation(layer(hidden))
        outputs = self.layers[-1](hidden)
        return outputs if self.skip is None else outputs + self.skip(x)
