"""Activations that PyTorch does not have."""

import math

import torch
from torch import Tensor, nn


class CubicPlusLinear(nn.Module):
    """The activation φ(z) = z³ + νz (Gatmiry et al., 2024).

    Args:
        nu: Coefficient ν ≥ 0 of the linear part; ν = 0 is the pure cube.

    Raises:
        ValueError: negative ν.
    """

    def __init__(self, nu: float = 0.1) -> None:
        super().__init__()
        if not nu >= 0:
            raise ValueError(f"CubicPlusLinear: nu = {nu} is negative; it must be >= 0")
        self.nu = nu

    def forward(self, z: Tensor) -> Tensor:
        """Compute φ(z) elementwise."""
        return z * (z.square() + self.nu)

    def derivative(self, z: Tensor) -> Tensor:
        """Compute φ′(z) = 3z² + ν elementwise."""
        return 3 * z.square() + self.nu

    def second_derivative(self, z: Tensor) -> Tensor:
        """Compute φ″(z) = 6z elementwise."""
        return 6 * z

    def inverse(self, values: Tensor) -> Tensor:
        """Compute φ⁻¹ elementwise: the real root of z³ + νz = value, by the hyperbolic form of Cardano's formula.

        Example:
            >>> CubicPlusLinear(nu=2.0).inverse(torch.tensor([-3.0, 0.0, 12.0]))
            tensor([-1.,  0.,  2.])
        """
        if self.nu == 0:
            return values.sign() * values.abs().pow(1 / 3)
        scale = math.sqrt(self.nu / 3)
        return 2 * scale * torch.sinh(torch.asinh(values / (2 * scale**3)) / 3)

    def extra_repr(self) -> str:
        """Return the arguments that ``print(module)`` shows."""
        return f"nu={self.nu}"
