"""LightningDataModules: whole data sets on the training device, keyed order, no worker processes."""

from importlib import import_module
from typing import Any

from lnsgd.data.cifar10 import CIFAR10
from lnsgd.data.gaussian_inputs import GaussianInputs
from lnsgd.data.hypercube import Hypercube
from lnsgd.data.image import ImageData
from lnsgd.data.in_memory import InMemory
from lnsgd.data.loader import DeviceLoader
from lnsgd.data.matrix_sensing import MatrixSensing
from lnsgd.data.mnist import MNIST, FashionMNIST
from lnsgd.data.points_1d import Points1D
from lnsgd.data.single_point import SinglePoint
from lnsgd.data.sphere_inputs import SphereInputs
from lnsgd.data.standard_basis import StandardBasis
from lnsgd.data.tensor_data import TensorData
from lnsgd.data.tensors import LabelledTensors
from lnsgd.measuring import Batch

__all__ = [
    "CIFAR10",
    "MNIST",
    "Batch",
    "DeviceLoader",
    "FashionMNIST",
    "GaussianInputs",
    "Hypercube",
    "ImageData",
    "InMemory",
    "LabelledTensors",
    "MatrixSensing",
    "Points1D",
    "SinglePoint",
    "SphereInputs",
    "StandardBasis",
    "TensorData",
]

_MOVED = {"ReplicatedData": "lnsgd.replicas"}


def __getattr__(name: str) -> Any:
    """Find a class that has moved to another room under its earlier name."""
    if name in _MOVED:
        return getattr(import_module(_MOVED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
