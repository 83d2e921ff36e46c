"""Second derivatives of a loss by the network's outputs."""

import torch
from torch import Tensor

from lnsgd.measures.curvature.problem import Problem


def output_factors(problem: Problem, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """F and signs σ with ∇²ℓ_i = F_i diag(σ_i) F_iᵀ, from the eigenvectors of ∇²ℓ_i by the outputs of example i.

    Args:
        problem: For its loss.
        outputs: (B, …), C numbers an example; not finite ones and losses give NaN.
        labels: (B, …).

    Returns:
        F (B, C, C), eigenvectors times √|λ|, and σ (B, C): 1, −1 where a loss is not convex in the outputs, or 0.
    """
    curvature = _second_derivatives(problem, outputs.detach(), labels)
    if not curvature.isfinite().all():  # an eigendecomposition would stop with an error of its own
        return torch.full_like(curvature, torch.nan), torch.ones_like(curvature[:, 0])
    values, vectors = torch.linalg.eigh(curvature.double())
    # What is this much smaller than the largest eigenvalue is rounding. Below zero it is that of all examples which
    # counts: differences such as p − p² round alike for those with hardly any curvature, and a single negative
    # eigenvalue would cost a pass of its own.
    rounding = torch.finfo(curvature.dtype).eps * values.abs()
    values = values.where(
        (values > rounding.amax(1, keepdim=True)) | (values < -values.shape[1] * rounding.amax()), 0.0
    )
    factors = vectors * values.abs().sqrt().unsqueeze(1)
    return factors.to(curvature), values.sign().to(curvature)


def _second_derivatives(problem: Problem, outputs: Tensor, labels: Tensor) -> Tensor:
    """∇²ℓ of every example, (B, C, C): C derivatives of the gradient, each for all examples at once."""
    flat = outputs.reshape(len(outputs), -1).requires_grad_()
    losses = problem.losses(flat.view_as(outputs), labels)
    if not losses.isfinite().all():
        return torch.full((*flat.shape, flat.shape[1]), torch.nan).to(flat)
    if not losses.requires_grad:
        return flat.new_zeros(*flat.shape, flat.shape[1])
    (slopes,) = torch.autograd.grad(losses.sum(), flat, create_graph=True, materialize_grads=True)
    if not slopes.requires_grad:
        return flat.new_zeros(*flat.shape, flat.shape[1])
    rows = [
        torch.autograd.grad(slope.sum(), flat, retain_graph=True, materialize_grads=True)[0]
        for slope in slopes.unbind(1)
    ]
    curvature = torch.stack(rows, dim=1)
    return (curvature + curvature.mT) / 2
