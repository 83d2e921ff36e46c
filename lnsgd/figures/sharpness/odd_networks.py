"""Networks Σ_j w_j φ(θ_j·x) with φ(z) = zᵖ + νz, p odd, and fixed output weights w_j (Gatmiry et al., § 3.2 and § 4.2).

The loss is Σ_i (r(x_i) − y_i)². On the manifold of zero loss R = Σ_i ‖Dr(x_i)‖² = Σ_i Σ_j w_j² φ′(θ_j·x_i)² for inputs
of norm one. Where inputs are independent, R is stationary where w_j φ″(θ_j·x_i) is the same for all neurons j.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lnsgd import rng


@dataclass(frozen=True)
class OddNetwork:
    """One problem, with the interface of `lnsgd.measures.closed_forms.Constrained`; weights are (1, m, d).

    Attributes:
        inputs: Inputs x_i of norm one, (n, d), float64.
        targets: Targets y_i, (n,).
        output_weights: w_j, (m,).
        power: p, an odd number from 3 on.
        nu: ν.
    """

    inputs: Tensor
    targets: Tensor
    output_weights: Tensor
    power: int
    nu: float

    def preactivations(self, weights: Tensor) -> Tensor:
        """Compute θ_j·x_i, (1, m, n)."""
        return weights @ self.inputs.T

    def slopes(self, z: Tensor) -> Tensor:
        """Compute φ′(z) = p zᵖ⁻¹ + ν."""
        return self.power * z ** (self.power - 1) + self.nu

    def bends(self, z: Tensor) -> Tensor:
        """Compute φ″(z) = p(p − 1)zᵖ⁻²."""
        return self.power * (self.power - 1) * z ** (self.power - 2)

    def residuals(self, weights: Tensor) -> Tensor:
        """Compute r(x_i) − y_i, (1, n)."""
        z = self.preactivations(weights)
        return (self.output_weights[:, None] * (z**self.power + self.nu * z)).sum(1) - self.targets

    def jacobian(self, weights: Tensor) -> Tensor:
        """Compute Dr(x_i), (1, n, m, d)."""
        slopes = self.output_weights[:, None] * self.slopes(self.preactivations(weights))
        return slopes.mT[..., None] * self.inputs[:, None]

    def regularizer(self, weights: Tensor) -> Tensor:
        """Compute R, (1,)."""
        return self.jacobian(weights).square().sum((1, 2, 3))

    def regularizer_gradient(self, weights: Tensor) -> Tensor:
        """Compute ∇R, (1, m, d)."""
        z = self.preactivations(weights)
        return 2 * (self.output_weights[:, None] ** 2 * self.slopes(z) * self.bends(z)) @ self.inputs


def second_over_first(matrix: Tensor) -> float:
    """Return σ₂/σ₁ of a matrix."""
    values = torch.linalg.svdvals(matrix)
    return float(values[1] / values[0])


def one_sam(
    problem: OddNetwork, start: Tensor, lr: float, radius: float, steps: int, looks: int, seed: int
) -> dict[int, Tensor]:
    """Train by sharpness-aware minimization with batches of one: θ ← θ − η∇L_i(θ + ρ∇L_i(θ)/‖∇L_i(θ)‖).

    Args:
        problem: The problem; its output weights are one.
        start: θ before training, (1, m, d).
        lr: η.
        radius: ρ; 0 for SGD.
        steps: Number of steps.
        looks: About at how many steps, spaced evenly in their logarithm, weights are returned.
        seed: Seed of the examples' order.

    Returns:
        The weights (1, m, d) by the number of steps taken.
    """
    order = torch.randint(len(problem.inputs), (steps,), generator=rng.generator(seed, "order")).tolist()
    inputs, targets = problem.inputs.numpy(), problem.targets.numpy()
    weights, power, nu = start[0].numpy().copy(), problem.power, problem.nu
    kept = set(np.unique(np.geomspace(1, steps, looks).round().astype(int)).tolist())
    found = {0: start}
    for step, i in enumerate(order, 1):
        x, y = inputs[i], targets[i]
        z = weights @ x
        square = z ** (power - 1)
        slopes = power * square + nu
        error = z @ (square + nu) - y
        # Inputs have norm one, so that the perturbation of θ adds this to the pre-activations.
        z = z + radius * np.sign(error) / np.sqrt(slopes @ slopes) * slopes
        square = z ** (power - 1)
        error = z @ (square + nu) - y
        weights -= np.outer(2 * lr * error * (power * square + nu), x)
        if step in kept:
            found[step] = torch.from_numpy(weights.copy())[None]
    return found
