"""Callbacks that measure derivatives of the loss: gradients, and the Hessian's trace and eigenvalues."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lnsgd.callbacks.base import LimitedCallback, LimitedFinalTensors
from lnsgd.measuring import (
    GradientNormMeasurer,
    HessianTraceMeasurer,
    ImplicitRegularizerMeasurer,
    SpectralDensityMeasurer,
    TopEigenvaluesMeasurer,
)
from lnsgd.runs.folder import RunFolder


class GradientNorm(GradientNormMeasurer, LimitedCallback):
    """Log ‖∇L‖₂ as ``gradient_norm/<split>`` and, per tensor, ``gradient_norm/<split>/<tensor>``.

    For the arguments see `lnsgd.measuring.GradientNormMeasurer`.
    """


class ImplicitRegularizer(ImplicitRegularizerMeasurer, LimitedCallback):
    """Log ``implicit_regularizer/<split>``: (1/n)Σ‖∇h(x_i)‖².

    For the arguments see `lnsgd.measuring.ImplicitRegularizerMeasurer`.
    """


class HessianTrace(HessianTraceMeasurer, LimitedCallback):
    """Log the trace of the Hessian of the mean loss as ``hessian_trace/<split>``, and the part of each tensor.

    Each number has its standard error. For the arguments see `lnsgd.measuring.HessianTraceMeasurer`.
    """

    default_overhead = 0.01


class TopEigenvalues(TopEigenvaluesMeasurer, LimitedCallback):
    """Log the largest eigenvalues of the Hessian of the mean loss as ``top_eigenvalue_1/<split>``, ``_2`` and so on.

    Logs ``top_eigenvalue_residual/<split>`` too, which tells whether they have converged. For the arguments see
    `lnsgd.measuring.TopEigenvaluesMeasurer`.
    """


class SpectralDensity(SpectralDensityMeasurer, LimitedFinalTensors):
    """Draw the spectral density of the Hessian of the trained network, see `lnsgd.measures.spectral_density`.

    Once, at the end of training: the picture goes into the run's ``figures/`` and to loggers that take images, nodes
    and weights into ``spectral_density_<split>.safetensors``. In a replicated run it is drawn of the first of the
    replicas that differ only in the seed. Nothing is drawn of a network that has diverged. For the arguments see
    `lnsgd.measuring.SpectralDensityMeasurer`, for ``max_overhead`` and ``averaged``
    `lnsgd.callbacks.base.LimitedFinalTensors`.
    """

    def file(self, run: RunFolder) -> Path:
        """Return ``spectral_density_<split>.safetensors``."""
        return run.spectral_density(self.split)

    def kept(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return nodes and weights."""
        return {name: tensors[name] for name in ("nodes", "weights") if name in tensors}
