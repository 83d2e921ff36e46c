"""Norms of weights: statistics of tensors, and products of norms over layers."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import trainable
from lnsgd.measures.precision import in_double
from lnsgd.measures.weights.singular_values import singular_values


def trainable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that need a gradient, by name, detached; they share memory with the model.

    Args:
        model: Any module.

    Raises:
        ValueError: the model has no such parameter.
    """
    return {name: p.detach() for name, p in trainable(model).items()}


@dataclass(frozen=True)
class TensorStatistics:
    """Frobenius norm of a tensor, and mean and largest of its entries.

    Attributes:
        norm: Frobenius norm √Σθ².
        mean: Mean of the entries.
        largest: Maximum of the entries, with its sign.
    """

    norm: float
    mean: float
    largest: float


def tensor_statistics(parameters: Mapping[str, Tensor]) -> dict[str, TensorStatistics]:
    """Compute the Frobenius norm √Σθ² of every tensor, and mean and maximum of its entries, in float64.

    Mean and maximum of a bias say whether neurons are being switched off (Cornacchia et al., section 4).

    Args:
        parameters: Tensors by name.

    Returns:
        Statistics by name; NaN for a tensor with an entry that is not finite. Complex tensors have a norm, of their
        absolute values, and NaN for mean and maximum, which are not defined; so do tensors without entries.

    Example:
        >>> tensor_statistics({"b": torch.tensor([3.0, -4.0])})
        {'b': TensorStatistics(norm=5.0, mean=-0.5, largest=3.0)}
    """
    double = {name: in_double(value) for name, value in parameters.items()}
    return {name: _statistics(value if value.isfinite().all() else value * torch.nan) for name, value in double.items()}


def _statistics(value: Tensor) -> TensorStatistics:
    norm = value.abs().norm().item()
    if value.is_complex() or not value.numel():
        return TensorStatistics(norm, math.nan, math.nan)
    return TensorStatistics(norm, value.mean().item(), value.max().item())


@dataclass(frozen=True)
class NormProducts:
    """Norms of the weight matrices of a network.

    Attributes:
        spectral_norms: Largest singular value of each weight matrix, by name.
        spectral: Product of the spectral norms.
        frobenius: Product of the Frobenius norms of the same matrices.
    """

    spectral_norms: dict[str, float]
    spectral: float
    frobenius: float


def norm_products(parameters: Mapping[str, Tensor]) -> NormProducts:
    """Compute the spectral norm ‖W‖₂ = σ₁(W) of every weight matrix, and the products ∏‖W‖₂ and ∏‖W‖_F, in float64.

    The products appear in norm-based bounds on generalization (Nagarajan and Kolter, section 6). Weight matrices are
    the tensors of two dimensions; tensors of fewer dimensions are biases and do not count. The filters of a
    convolution (more dimensions) are not a matrix, and the norm of a reshaped one is not the norm of the map: they have
    no spectral norm, and because the products would lack a layer, the products are NaN.

    The spectral norm takes a full singular value decomposition, O(n³): on one CPU core about 1 s for 1280 × 1280, 5 s
    for 2560 × 2560, 30 s for 5120 × 5120.

    Args:
        parameters: Tensors by name.

    Returns:
        The norms; a norm is NaN if an entry is not finite. A product is NaN if a factor is, if there is no matrix, and
        if there is a tensor of more than two dimensions. It is inf only if the product itself is beyond float64:
        intermediate products do not overflow.

    Example:
        >>> norm_products({"a": torch.diag(torch.tensor([3.0, 4.0])), "b": torch.tensor([[2.0], [0.0]])})
        NormProducts(spectral_norms={'a': 4.0, 'b': 2.0}, spectral=8.0, frobenius=10.0)
    """
    matrices = {name: in_double(value) for name, value in parameters.items() if value.ndim == 2}
    # An empty matrix has no singular values; it maps everything to zero.
    spectral_norms = {name: max(singular_values(w).tolist(), default=0.0) for name, w in matrices.items()}
    if not matrices or any(value.ndim > 2 for value in parameters.values()):
        return NormProducts(spectral_norms, math.nan, math.nan)
    frobenius_norms = (matrix.norm().item() for matrix in matrices.values())
    return NormProducts(spectral_norms, _product(spectral_norms.values()), _product(frobenius_norms))


def _product(factors: Iterable[float]) -> float:
    mantissa, exponent = 1.0, 0
    for factor in factors:
        mantissa, shift = math.frexp(mantissa * factor)
        exponent += shift
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf
