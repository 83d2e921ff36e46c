"""Gradient flow on a manifold, such as that of zero loss."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

_LONGEST_STEP, _SHORTEST_STEP = 1.0, 1e-12
_NEWTON_STEPS = 50
_ON_MANIFOLD = 1e-12


class Constrained(Protocol):
    """Constraints c(θ) = 0 and the gradient of the function R that falls, for S problems with weights (S, …)."""

    def residuals(self, weights: Tensor) -> Tensor:
        """Compute the residuals c, shape (S, n)."""

    def jacobian(self, weights: Tensor) -> Tensor:
        """Compute the Jacobian Dc, shape (S, n, …)."""

    def regularizer_gradient(self, weights: Tensor) -> Tensor:
        """Compute the gradient ∇R, shape (S, …)."""


def retract(problem: Constrained, weights: Tensor) -> Tensor:
    """Find the point of the manifold {c = 0} to which Gauss-Newton steps θ − Jᵀ(JJᵀ)⁻¹c lead.

    To first order in its distance it is the nearest point of the manifold.

    Args:
        problem: S problems.
        weights: θ, shape (S, …), float64.

    Raises:
        ValueError: the manifold is not reached.
    """
    for _ in range(_NEWTON_STEPS):
        residuals = problem.residuals(weights)
        if residuals.abs().max() <= _ON_MANIFOLD:
            return weights
        if not residuals.isfinite().all():
            break
        jacobian = problem.jacobian(weights).flatten(2)
        weights = weights - _minimum_norm(jacobian, residuals).view_as(weights)
    raise ValueError(
        f"retract: the manifold is not reached, the largest residual is {residuals.abs().max().item():.3g}; "
        "start from weights with a smaller loss"
    )


def projected_flow(problem: Constrained, start: Tensor, times: Sequence[float], tolerance: float = 1e-6) -> Tensor:
    """Solve dθ/ds = −P_T ∇R(θ), P_T the projection on the tangent space of {c = 0}.

    With c_i = r(x_i) − y_i and R = Σ_i ‖Dr(x_i)‖² this is the limit of gradient descent on Σ_i (r(x_i) − y_i − z_i)²
    with fresh label noise z_i of variance σ² and step η, at s = η²σ²·steps, once the loss is zero: around a point of
    the manifold θ fluctuates with covariance ησ²P_N, which shifts the mean gradient of the loss by ησ²∇R, and a step
    by −η²σ²∇R. This covariance holds for η → 0; for finite η it has a factor 1/(1 − ηa) for each eigenvalue a of JJᵀ.
    In terms of the trace of the Hessian, 2R, the right-hand side is −½P_T ∇Tr D²L (Blanc et al.; Gatmiry et al.).

    The method is that of Bogacki and Shampine of order 3, with one adaptive step size for all problems. After each step
    the weights return to the manifold by Gauss-Newton steps θ − Jᵀ(JJᵀ)⁻¹c.

    Args:
        problem: S problems, whose derivatives must be independent (JJᵀ invertible).
        start: θ at s = 0, shape (S, …), float64, near enough to the manifold for Gauss-Newton to reach it.
        times: T values of s ≥ 0, increasing.
        tolerance: Largest error of an entry of θ in one step.

    Returns:
        θ at each of the times, shape (T, S, …).

    Raises:
        ValueError: times that are negative or do not increase, a tolerance ≤ 0, a start from which the manifold is
            not reached, or derivatives that are not independent.
    """
    if any(later <= earlier for earlier, later in zip([-1e-300, *times], times)) or not tolerance > 0:
        raise ValueError(f"projected_flow: times must be >= 0 and increase, and tolerance = {tolerance} be > 0")
    weights = retract(problem, start)
    now, step, found = 0.0, 1e-3, []
    slope = _velocity(problem, weights)
    for time in times:
        while now < time:
            used = min(step, time - now)
            proposed, error = _try_step(problem, weights, slope, used)
            if error > tolerance and used < _SHORTEST_STEP:
                raise ValueError(f"projected_flow: no step at s = {now:.3g}, where the derivatives are dependent")
            if error <= tolerance:
                # In s, so that the last step before a time ends exactly there.
                now = time if used == time - now else now + used
                weights = retract(problem, proposed)
                slope = _velocity(problem, weights)
            factor = 0.9 * (tolerance / max(error, 1e-300)) ** (1 / 3)
            grown = used * min(3.0, max(0.2, factor))
            # A step that was cut short to end at a time says little about the next one.
            step = min(grown if used == step or error > tolerance else max(step, grown), _LONGEST_STEP)
        found.append(weights)
    return torch.stack(found)


def _try_step(problem: Constrained, weights: Tensor, slope: Tensor, step: float) -> tuple[Tensor, float]:
    """Return the weights after a step, not yet on the manifold, and an estimate of the largest error."""
    second = _velocity(problem, weights + step / 2 * slope)
    third = _velocity(problem, weights + 3 / 4 * step * second)
    proposed = weights + step / 9 * (2 * slope + 3 * second + 4 * third)
    fourth = _velocity(problem, proposed)
    error = step * (-5 / 72 * slope + second / 12 + third / 9 - fourth / 8)
    largest = error.abs().max().item()
    return proposed, largest if largest == largest else float("inf")


def _velocity(problem: Constrained, weights: Tensor) -> Tensor:
    """Compute −P_T ∇R."""
    gradient = problem.regularizer_gradient(weights).flatten(1)
    jacobian = problem.jacobian(weights).flatten(2)
    normal = _minimum_norm(jacobian, (jacobian @ gradient[..., None])[..., 0])
    return (normal - gradient).view_as(weights)


def _minimum_norm(jacobian: Tensor, values: Tensor) -> Tensor:
    """Compute Jᵀ(JJᵀ)⁻¹v, shape (S, p), for J (S, n, p) and v (S, n); NaN if JJᵀ has no inverse."""
    solution, info = torch.linalg.solve_ex(jacobian @ jacobian.mT, values[..., None])
    solution = solution.where((info == 0)[:, None, None], torch.nan)
    return (solution.mT @ jacobian)[:, 0]
