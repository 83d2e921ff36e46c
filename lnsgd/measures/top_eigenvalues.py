"""How sharp the loss is: the largest eigenvalues of its Hessian."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.lanczos import Krylov
from lnsgd.measures.curvature.problem import Batches, LossFunction, Problem, Share, differentiating

# Vectors of the size of θ that are kept; with more of them a restart loses less.
_CAPACITY = 40


@dataclass(frozen=True)
class TopEigenvalues:
    """The largest eigenvalues of the Hessian, on the CPU in float64.

    Attributes:
        values: (count,), the largest first, each as often as it occurs.
        vectors: Unit eigenvectors, (count, P); entries in the order of the trainable parameters.
        residuals: ‖Hv − λv‖ of each, (count,): no farther from a value is an eigenvalue of the Hessian, up to the
            rounding of products in the parameters' type. That none larger was missed rests on the random start.
        converged: Whether all residuals are small enough.
        products: Number of Hessian products that were taken.
        samples: Number of examples.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: bool
    products: int
    samples: int


def top_eigenvalues(
    model: nn.Module,
    loss: LossFunction,
    data: Batches,
    *,
    count: int = 1,
    rtol: float = 1e-3,
    max_products: int = 200,
    generator: torch.Generator | None = None,
    share: Share = Share(),  # noqa: B008
) -> TopEigenvalues:
    """Largest (not largest in magnitude) eigenvalues λ₁ ≥ λ₂ ≥ … of ∇²L, L the *mean* loss, model in eval mode.

    λ₁ is the sharpness of Cohen et al. (2021), which full-batch gradient descent drives to 2/(learning rate).
    Block Lanczos (Golub and Underwood, 1977) from ``count`` random vectors, so that eigenvalues are found as often as
    they occur, with full reorthogonalization and restarts. It keeps max(40, 4·count) float64 vectors of the size of
    θ; on several processes products are summed, P numbers each.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``, twice differentiable in the outputs.
        data: Batches (inputs, labels) on the model's device, the same whenever they are iterated.
        count: How many eigenvalues.
        rtol: Converged when all residuals are at most this part of |λ₁|. The error of a value that is far from the
            others is smaller, of the order of the square.
        max_products: No more Hessian products than these; the residuals then say how far it got.
        generator: CPU generator of the random vectors; seeded with 0 where it is ``None``.
        share: This process's share of the data, where several take them together; their generators must give the
            same numbers.

    Raises:
        ValueError: a count below 1 or above the number of parameters, a tolerance that is not positive, fewer products
            than eigenvalues, no examples, data that can be read only once, no trainable parameter, outputs that are
            not floating point, or a loss that is not per example.
        NonFiniteError: a loss or derivative is NaN or infinite.
    """
    check_settings(count, rtol, max_products)
    generator = generator or torch.Generator().manual_seed(0)
    with differentiating(model):
        problem = Problem(model, loss, data, share)
        if count > problem.size:
            raise ValueError(f"count = {count}; a network of {problem.size} parameters has {problem.size} eigenvalues")
        starts = torch.randn(1, count, problem.size, generator=generator, dtype=torch.float64).to(problem.device)
        krylov = Krylov(problem, starts, capacity=max(_CAPACITY, 4 * count))
        while True:
            grows = krylov.grow()
            values, coefficients = _ritz(krylov)
            residuals = (coefficients[:count, -count:] @ krylov.outside[0]).norm(dim=1)
            converged = not grows or bool((residuals <= rtol * values[0].abs()).all())
            if converged or krylov.products + count > max_products:
                vectors = coefficients[:count] @ krylov.basis[0]
                found = (values[:count].cpu(), vectors.cpu(), residuals.cpu())
                return TopEigenvalues(*found, converged, krylov.products, krylov.samples)
            if not krylov.room:
                kept = max(count, len(values) // 2)
                krylov.keep(coefficients[None, :kept], values[None, :kept])


def check_settings(count: int, rtol: float, max_products: int) -> None:
    """Raises ValueError where arguments of `top_eigenvalues` make no sense for any network."""
    if count < 1:
        raise ValueError(f"count = {count}; ask for at least 1 eigenvalue")
    if not rtol > 0:
        raise ValueError(f"rtol = {rtol}; the residuals allowed, relative to the largest eigenvalue, must be > 0")
    if max_products < count:
        raise ValueError(f"max_products = {max_products}; {count} eigenvalues need at least {count}")


def _ritz(krylov: Krylov) -> tuple[Tensor, Tensor]:
    """Eigenvalues of QHQᵀ, the largest first, and eigenvectors as rows; without the pairs of vectors that are zero."""
    alive = krylov.alive[0]
    values, vectors = torch.linalg.eigh(krylov.projected[0][alive][:, alive])
    coefficients = torch.zeros(len(values), krylov.size, dtype=torch.float64, device=values.device)
    coefficients[:, alive] = vectors.mT
    return values.flip(0), coefficients.flip(0)
