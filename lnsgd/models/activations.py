"""Activations that torch does not have."""

from torch import Tensor, nn


class CubicPlusLinear(nn.Module):
    """φ(z) = z³ + νz, the activation of the sharpness-minimization paper.

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
        """φ(z), elementwise."""
        return z * (z.square() + self.nu)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"nu={self.nu}"
