"""Plain ``nn.Module`` networks: no Lightning, no noise, no replicas."""

from lnsgd.models.activations import CubicPlusLinear
from lnsgd.models.init import AlternatingSigns, HeNormal, Initializer, TorchDefault, Uniform, XavierNormal
from lnsgd.models.mlp import MLP

__all__ = [
    "MLP",
    "AlternatingSigns",
    "CubicPlusLinear",
    "HeNormal",
    "Initializer",
    "TorchDefault",
    "Uniform",
    "XavierNormal",
]
