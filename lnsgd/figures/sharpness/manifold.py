"""Gradient and Hessian of the trace on the manifold of zero loss: Gatmiry et al., Lemmas 4, 6 and 7.

F = Σ_iΣ_j φ′(θ_j·x_i)² for inputs of norm one, which the paper calls Tr D²L (Lemma 3; with the loss Σ_i (r(x_i) − y_i)²
the trace is 2F). With α = (JJᵀ)⁻¹J·DF, J = Dr, gradient and Hessian on the manifold are

    ∇F = DF − Jᵀα,   ∇²F[u, u] = D²F[u, u] − Σ_i α_i D²r(x_i)[u, u] for tangent u (Lemma 5).

The lemmas speak of points where ‖∇F‖ ≤ √μ·β. Here μ = λ_min(XXᵀ), and β = min(1/9, ν²) is what Section 3.2 gives for
z³ + νz. ϱ₁ = ν and ϱ₂ = 6 are the minima of φ′ and φ‴.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lnsgd.figures.framework.claims import Claim, judge
from lnsgd.figures.sharpness.statements import STATEMENTS
from lnsgd.measures.closed_forms import SumNetwork

# Below this ‖∇F‖ the errors of the computed flow count: weights of error 1e-6 and a Hessian up to about 30.
SMALLEST = 1e-4


@dataclass(frozen=True)
class Geometry:
    """The quantities of the lemmas along a path on the manifold, for R instances at T times.

    Attributes:
        gradient: ‖∇F‖, (R, T).
        curvature: The least eigenvalue of ∇²F on the tangent space, (R, T).
        distance: The largest |θ_j·x_i − φ⁻¹(y_i/m)|, (R, T).
        threshold: √μ·β, (R, 1).
        strength: √μ·ϱ₁ϱ₂, (R, 1).
    """

    gradient: np.ndarray
    curvature: np.ndarray
    distance: np.ndarray
    threshold: np.ndarray
    strength: np.ndarray

    @property
    def stationary(self) -> np.ndarray:
        """Whether a point is √μ·β-stationary, (R, T)."""
        return self.gradient <= self.threshold


def tangent_gradient(problem: SumNetwork, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ∇F, (S, m·d), and the coefficients α of its normal part, (S, n).

    Args:
        problem: S problems, with inputs of norm one and step size 0.
        weights: Weights on the manifold, (S, m, d).
    """
    jacobian, gradient = problem.jacobian(weights).flatten(2), problem.regularizer_gradient(weights).flatten(1)
    normal = torch.linalg.solve(jacobian @ jacobian.mT, jacobian @ gradient[..., None])
    return gradient - (jacobian.mT @ normal)[..., 0], normal[..., 0]


def tangent_hessian(problem: SumNetwork, weights: Tensor) -> Tensor:
    """Compute ∇²F in an orthonormal basis of the tangent space, (S, m·d − n, m·d − n); see `tangent_gradient`."""
    _, normal = tangent_gradient(problem, weights)
    z = problem.preactivations(weights)
    slope, second, third = problem.activation.derivative(z), problem.activation.second_derivative(z), 6.0
    factors = 2 * (second.square() + slope * third) - normal[:, None] * second
    blocks = torch.einsum("sjn,snd,sne->sjde", factors, problem.inputs, problem.inputs)
    full = torch.stack([torch.block_diag(*of_problem) for of_problem in blocks])
    jacobian = problem.jacobian(weights).flatten(2)
    basis = torch.linalg.svd(jacobian)[2][:, jacobian.shape[1] :]
    return basis @ full @ basis.mT


def geometry(problem: SumNetwork, path: Tensor) -> Geometry:
    """Compute the quantities of the lemmas.

    Args:
        problem: R instances.
        path: Weights on the manifold, (T, R, m, d), float64.
    """
    gradient = torch.stack([tangent_gradient(problem, weights)[0].norm(dim=1) for weights in path], 1)
    curvature = torch.stack([torch.linalg.eigvalsh(tangent_hessian(problem, weights))[:, 0] for weights in path], 1)
    distance = torch.stack([problem.distance(weights) for weights in path], 1)
    root = torch.linalg.eigvalsh(problem.inputs @ problem.inputs.mT)[:, :1].sqrt().numpy()
    nu = problem.activation.nu
    beta = min(1 / 9, nu**2)
    return Geometry(gradient.numpy(), curvature.numpy(), distance.numpy(), root * beta, root * nu * 6)


def judge_lemmas(found: Geometry) -> list[Claim]:
    """Judge the lemmas along a flow that reaches stationary points."""
    near, gradient = found.stationary, found.gradient
    accurate = gradient >= SMALLEST
    growth = np.where((near & accurate)[:, :-1] & accurate[:, 1:], gradient[:, 1:] / gradient[:, :-1], -np.inf)
    ever = np.logical_or.accumulate(near, axis=1)
    where = "where ‖∇F‖ ≤ √μ·β"
    return [
        judge(
            "flow-gradient-falls",
            f"the flow: ‖∇F‖ on the manifold falls {where} (largest ratio of a value to the one before)",
            STATEMENTS["flow-gradient"],
            paper="decreasing",
            measured=_largest(growth),
            high=1.0,
            deterministic=True,
        ),
        judge(
            "flow-gradient-stays",
            "the flow: once ‖∇F‖ ≤ √μ·β it stays so (largest ‖∇F‖ from then on, over √μ·β)",
            STATEMENTS["flow-stays"],
            paper="remains small",
            measured=_largest(np.where(ever, gradient / found.threshold, -np.inf)),
            high=1.0,
            deterministic=True,
        ),
        judge(
            "flow-convex",
            f"the flow: least eigenvalue of the Hessian of F on the manifold {where}",
            STATEMENTS["flow-convex"],
            paper="PSD",
            measured=-_largest(np.where(near, -found.curvature, -np.inf)),
            low=0.0,
            deterministic=True,
        ),
        judge(
            "flow-near-optimum",
            "the flow: largest |θ_j·x_i − φ⁻¹(y_i/m)| over its bound ‖∇F‖/(√μ·ϱ₁ϱ₂), at any time",
            STATEMENTS["flow-near-optimum"],
            paper="at most 1",
            measured=_largest(np.where(accurate, found.distance * found.strength / gradient, -np.inf)),
            high=1.0,
            deterministic=True,
        ),
    ]


def _largest(values: np.ndarray) -> np.ndarray:
    """Return the largest value of each row; NaN for a row in which nothing counts (−∞)."""
    largest = values.max(axis=1)
    return np.where(np.isneginf(largest), np.nan, largest)
