"""Logs how large the weights are."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class WeightNorms(MeasureCallback):
    """Logs ``norm/<tensor>`` for every parameter, and for biases ``bias_mean/<tensor>`` and ``bias_max/<tensor>``.

    See `lnsgd.measures.tensor_statistics`; a parameter of one dimension is a bias.

    Args:
        spectral: Also log ``spectral_norm/<tensor>`` for every weight matrix, and over all of them the products
            ``spectral_norm_product`` and ``norm_product``. See `lnsgd.measures.norm_products` for what it costs (30 s
            for 5120 × 5120 on one core; choose a schedule or ``max_overhead`` accordingly) and for networks with
            convolutions, whose filters are left out and whose products are NaN.
        schedule: See `MeasureCallback`.
    """

    headline = ("norm", "norm")

    def __init__(self, spectral: bool = False, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.spectral = spectral

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "spectral": self.spectral}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Statistics of each tensor; if asked for, spectral norms and products of norms."""
        parameters = dict(subject.module.named_parameters())
        found = []
        for name, of_tensor in measures.tensor_statistics(parameters).items():
            found.append(Measurement("norm", "", name, of_tensor.norm))
            if parameters[name].ndim == 1:
                found.append(Measurement("bias_mean", "", name, of_tensor.mean))
                found.append(Measurement("bias_max", "", name, of_tensor.largest))
        return found + _products(parameters) if self.spectral else found


def _products(parameters: Mapping[str, Tensor]) -> list[Measurement]:
    found = measures.norm_products(parameters)
    return [
        *(Measurement("spectral_norm", "", name, norm) for name, norm in found.spectral_norms.items()),
        Measurement("spectral_norm_product", "", "", found.spectral),
        Measurement("norm_product", "", "", found.frobenius),
    ]
