"""The largest eigenvalues of the Hessian: a measure of the sharpness of the loss."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.lanczos import Krylov
from lnsgd.measures.curvature.problem import Problem, differentiating
from lnsgd.measures.curvature.products import check_products
from lnsgd.measures.evaluation import WHOLE, LossFunction, Share
from lnsgd.measures.forward import Batches, OutputsFunction, outputs_of
from lnsgd.measures.report import Report

# Smallest number of vectors of the size of θ that are kept; with more of them, a restart loses less.
_CAPACITY = 40


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues of the Hessian with their eigenvectors, on the CPU in float64.

    Attributes:
        values: Shape (count,), the largest first, each as often as it occurs.
        vectors: Unit eigenvectors, shape (count, P), with entries in the order of the trainable parameters.
        residuals: ‖Hv − λv‖ of each pair, shape (count,). An eigenvalue of the Hessian is at most this far from the
            value, up to the rounding of products in the parameters' type. That no larger eigenvalue was missed rests
            on the random start.
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
    share: Share = WHOLE,
    outputs: OutputsFunction = outputs_of,
    report: Report | None = None,
) -> Eigenpairs:
    """Compute the largest eigenvalues λ₁ ≥ λ₂ ≥ … of ∇²L, L the *mean* loss over the data, with the model in eval mode.

    They are the largest, not the largest in magnitude. λ₁ is the sharpness of Cohen et al. (2021), which full-batch
    gradient descent drives to 2/(learning rate).

    Block Lanczos (Golub and Underwood, 1977) from ``count`` random vectors, so that eigenvalues are found as often as
    they occur, with full reorthogonalization and restarts. It keeps max(40, 4·count) float64 vectors of the size of θ;
    on several processes products are summed, P numbers each.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``, twice differentiable in the outputs; or a loss of
            each label, in the labels' shape, whose mean is over the labels of all examples.
        data: Batches (inputs, labels) on the model's device, the same whenever they are iterated.
        count: Number of eigenvalues.
        rtol: The iteration ends when all residuals are at most this fraction of |λ₁|. The error of a value that is far
            from the others is smaller, of the order of the square.
        max_products: Largest number of Hessian products. If the tolerance is not reached by then, the residuals say so.
        generator: CPU generator of the random vectors; by default one seeded with 0.
        share: This process's share of the data, if several processes take the measure together; their generators must
            give the same numbers.
        outputs: How the network is called, ``outputs(network, inputs) -> (B, …)``, see `lnsgd.measures.outputs_of`.
        report: Is told the progress, and announces a computation that takes long, see `lnsgd.measures.Report`.

    Raises:
        ValueError: a count below 1 or above the number of parameters, a tolerance that is not positive, fewer products
            than eigenvalues, no examples, data that can be read only once, no trainable parameter, outputs that are
            not floating point, a loss that is not per example, or operations whose second derivatives are missing or
            wrong.
        NonFiniteError: a loss or derivative is NaN or infinite.

    Example:
        >>> from lnsgd.losses import SquaredLoss
        >>> net = nn.Linear(2, 1, bias=False)  # its Hessian is the diagonal matrix of 1 and 4
        >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))]
        >>> round(top_eigenvalues(net, SquaredLoss(), data).values.item(), 4)
        4.0
    """
    check_settings(count, rtol, max_products)
    generator = generator or torch.Generator().manual_seed(0)
    with differentiating(model):
        problem = Problem(model, loss, data, share, outputs, report or Report("top_eigenvalues"))
        if count > problem.size:
            raise ValueError(f"count = {count}; a network of {problem.size} parameters has {problem.size} eigenvalues")
        check_products(problem)
        problem.expect(max_products)
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
                return Eigenpairs(*found, converged, krylov.products, krylov.samples)
            if not krylov.has_room:
                kept = max(count, len(values) // 2)
                krylov.keep(coefficients[None, :kept], values[None, :kept])


def check_settings(count: int, rtol: float, max_products: int) -> None:
    """Check arguments of `lnsgd.measures.top_eigenvalues` before there is a network.

    Args:
        count: See `lnsgd.measures.top_eigenvalues`.
        rtol: See `lnsgd.measures.top_eigenvalues`.
        max_products: See `lnsgd.measures.top_eigenvalues`.

    Raises:
        ValueError: a count below 1, a tolerance that is not positive, or fewer products than eigenvalues.
    """
    if count < 1:
        raise ValueError(f"count = {count}; ask for at least 1 eigenvalue")
    if not rtol > 0:
        raise ValueError(f"rtol = {rtol}; the residuals allowed, relative to the largest eigenvalue, must be > 0")
    if max_products < count:
        raise ValueError(f"max_products = {max_products}; {count} eigenvalues need at least {count}")


def _ritz(krylov: Krylov) -> tuple[Tensor, Tensor]:
    """Return eigenvalues of QHQᵀ, the largest first, and eigenvectors as rows; vectors that are zero are left out."""
    alive = krylov.alive[0]
    values, vectors = torch.linalg.eigh(krylov.projected[0][alive][:, alive])
    coefficients = torch.zeros(len(values), krylov.size, dtype=torch.float64, device=values.device)
    coefficients[:, alive] = vectors.mT
    return values.flip(0), coefficients.flip(0)
