"""Closed forms of the network h(x) = Σ_j c_j tanh(w_j·x) on the manifold of zero error: Blanc et al.

There are H units and n examples in d dimensions. The loss of an example is (h(x_i) − y_i)², without ½.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TanhNetwork:
    """Problems of one size, each with examples of its own; the weights of all are one tensor (S, H, d + 1).

    The row of unit j is (w_j, c_j). Nothing is rounded: give float64 where small differences count.

    Attributes:
        inputs: x_i of each problem, (S, n, d).
        targets: y_i, (S, n).
    """

    inputs: Tensor
    targets: Tensor

    def outputs(self, weights: Tensor) -> Tensor:
        """h(x_i), (S, n)."""
        return (weights[..., -1:] * self._activations(weights)).sum(1)

    def residuals(self, weights: Tensor) -> Tensor:
        """h(x_i) − y_i, (S, n); all zero on the manifold."""
        return self.outputs(weights) - self.targets

    def jacobian(self, weights: Tensor) -> Tensor:
        """∇h(x_i), (S, n, H, d + 1)."""
        activations = self._activations(weights)
        slopes = (weights[..., -1:] * (1 - activations.square())).mT
        return torch.cat([slopes[..., None] * self.inputs[:, :, None], activations.mT[..., None]], -1)

    def regularizer(self, weights: Tensor) -> Tensor:
        """R = (1/n)Σ_i ‖∇h(x_i)‖², (S,); see `lnsgd.measures.implicit_regularizer`."""
        return self.jacobian(weights).square().sum((2, 3)).mean(1)

    def regularizer_gradient(self, weights: Tensor) -> Tensor:
        """∇R, (S, H, d + 1).

        Its entry j is (2/n)Σ_iΣ_k h_i^{jk} h_i^k, upper indices for derivatives, which is twice the sum in Blanc et
        al., Lemma 6: with θ ← θ − 2η(h(x_i) − y_i − z)∇h(x_i) for a random example and noise z, T steps move the flat
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
