"""How much a network can stretch its inputs, as far as the norms of its weight matrices say."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lnsgd.measures.singular_values import singular_values


@dataclass(frozen=True)
class NormProducts:
    """Norms of the weight matrices of a network.

    Attributes:
        spectral_norms: Largest singular value of each weight matrix, by name.
        spectral: Product of them.
        frobenius: Product of the Frobenius norms of the same matrices.
    """

    spectral_norms: dict[str, float]
    spectral: float
    frobenius: float


def norm_products(parameters: Mapping[str, Tensor]) -> NormProducts:
    """Spectral norm ‖W‖₂ = σ₁(W) of every weight matrix, and the products ∏‖W‖₂ and ∏‖W‖_F over all, in float64.

    The products are those of norm-based bounds on generalization (Nagarajan and Kolter, section 6). Weight matrices are
    the tensors of two dimensions; those of fewer are biases and do not count. The filters of a convolution (more
    dimensions) are no matrix, and the norm of a reshaped one is not that of the map: they have no spectral norm, and as
    the products would lack a layer they are NaN.

    The spectral norm takes a full singular value decomposition, O(n³): on one CPU core about 1 s for 1280 × 1280, 5 s
    for 2560 × 2560, 30 s for 5120 × 5120.

    Args:
        parameters: Tensors by name.

    Returns:
        Norms, NaN where an entry is not finite. Products are NaN where a factor is, where there is no matrix, and where
        there is a tensor of more than two dimensions; inf only where the product itself is beyond float64,
        for none on the way overflows.

    Example:
        >>> import torch
        >>> norm_products({"a": torch.diag(torch.tensor([3.0, 4.0])), "b": torch.tensor([[2.0], [0.0]])})
        NormProducts(spectral_norms={'a': 4.0, 'b': 2.0}, spectral=8.0, frobenius=10.0)
    """
    matrices = {name: value.detach().double() for name, value in parameters.items() if value.ndim == 2}
    # Empty matrices, which have no singular values, map everything to zero.
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
