"""Networks, as plain modules of PyTorch without Lightning, noise or replicas."""

from lnsgd.models.activations import CubicPlusLinear
from lnsgd.models.init import (
    AlternatingSigns,
    Constant,
    HeNormal,
    Initializer,
    Normal,
    TorchDefault,
    Uniform,
    XavierNormal,
)
from lnsgd.models.matrix_factorization import MatrixFactorization
from lnsgd.models.mlp import MLP
from lnsgd.models.resnet import CIFARResNet, ResNet20, ResNet32, ResNet44, ResNet56

__all__ = [
    "MLP",
    "AlternatingSigns",
    "CIFARResNet",
    "Constant",
    "CubicPlusLinear",
    "HeNormal",
    "Initializer",
    "MatrixFactorization",
    "Normal",
    "ResNet20",
    "ResNet32",
    "ResNet44",
    "ResNet56",
    "TorchDefault",
    "Uniform",
    "XavierNormal",
]
