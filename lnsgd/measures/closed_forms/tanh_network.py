"""Closed forms of the network h(x) = Σ_j c_j tanh(w_j·x) on the manifold of zero error (Blanc et al.).

There are H units and n examples in d dimensions. The loss of an example is (h(x_i) − y_i)², without ½.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TanhNetwork:
    """S problems of one size, each with examples of its own; the weights of all are one tensor (S, H, d + 1).

    The row of unit j is (w_j, c_j). Tensors keep their precision: use float64 if small differences count.

    Attributes:
        inputs: Inputs x_i of each problem, shape (S, n, d).
        targets: Targets y_i, shape (S, n).

    Example:
        >>> problem = TanhNetwork(torch.ones(1, 1, 1), torch.zeros(1, 1))
        >>> problem.regularizer(torch.tensor([[[0.0, 1.0]]])).item()  # slope 1 by w, tanh(0) = 0 by c
        1.0
    """

    inputs: Tensor
    targets: Tensor

    def outputs(self, weights: Tensor) -> Tensor:
        """Compute the outputs h(x_i), shape (S, n)."""
        return (weights[..., -1:] * self._activations(weights)).sum(1)

    def residuals(self, weights: Tensor) -> Tensor:
        """Compute h(x_i) − y_i, shape (S, n); all are zero on the manifold."""
        return self.outputs(weights) - self.targets

    def jacobian(self, weights: Tensor) -> Tensor:
        """Compute the gradients ∇h(x_i), shape (S, n, H, d + 1)."""
        activations = self._activations(weights)
        slopes = (weights[..., -1:] * (1 - activations.square())).mT
        return torch.cat([slopes[..., None] * self.inputs[:, :, None], activations.mT[..., None]], -1)

    def regularizer(self, weights: Tensor) -> Tensor:
        """Compute R = (1/n)Σ_i ‖∇h(x_i)‖², shape (S,); see `lnsgd.measures.implicit_regularizer`."""
        return self.jacobian(weights).square().sum((2, 3)).mean(1)

    def regularizer_gradient(self, weights: Tensor) -> Tensor:
        """Compute ∇R, shape (S, H, d + 1).

        Its entry j is (2/n)Σ_iΣ_k h_i^{jk} h_i^k, upper indices denoting derivatives, which is twice the sum in Blanc
        et al., Lemma 6: with θ ← θ − 2η(h(x_i) − y_i − z)∇h(x_i) for random examples and noise z, T steps move the flat
        directions by −2Tη²·Var(z)·(1/n)Σ_iΣ_k h_i^{jk} h_i^k = −s·∇_jR, s = Tη²·Var(z).
        """
        activations = self._activations(weights)
        slopes = 1 - activations.square()
        norms = self.inputs.square().sum(-1)[:, None]
        squares = slopes.square() * norms
        # tanh″ = −2 tanh tanh′.
        of_preactivations = activations * slopes * (1 - 2 * weights[..., -1:].square() * slopes * norms)
        of_inputs = of_preactivations @ self.inputs
        of_outputs = weights[..., -1:] * squares.sum(2, keepdim=True)
        return 2 * torch.cat([of_inputs, of_outputs], -1) / self.inputs.shape[1]

    def _activations(self, weights: Tensor) -> Tensor:
        return torch.tanh(weights[..., :-1] @ self.inputs.mT)
