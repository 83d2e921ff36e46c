"""Closed forms of the network r(x) = Σ_j φ(θ_j·x) on the zero-loss manifold: Gatmiry et al., 2024.

The loss is Σ_i (r(x_i) − y_i)², a sum without ½. There are m neurons with weights θ_j, and n examples in d dimensions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lnsgd.measures.projected_flow import retract
from lnsgd.models import MLP, CubicPlusLinear


@dataclass(frozen=True)
class SumNetwork:
    """Problems of one size, each with examples of its own; the weights of all are one tensor (S, m, d).

    Nothing is rounded: give float64 where small differences count.

    Attributes:
        inputs: x_i of each problem, (S, n, d).
        targets: y_i, (S, n).
        activation: φ.
        lr: Step size η of the descent whose drift `regularizer_gradient` is.
    """

    inputs: Tensor
    targets: Tensor
    activation: CubicPlusLinear
    lr: float = 0.0

    def preactivations(self, weights: Tensor) -> Tensor:
        """θ_j·x_i, (S, m, n)."""
        return weights @ self.inputs.mT

    def residuals(self, weights: Tensor) -> Tensor:
        """r(x_i) − y_i, (S, n); all zero on the manifold."""
        return self.activation(self.preactivations(weights)).sum(1) - self.targets

    def jacobian(self, weights: Tensor) -> Tensor:
        """Dr(x_i), the gradients of the outputs with respect to the weights, (S, n, m, d)."""
        slopes = self.activation.derivative(self.preactivations(weights))
        return slopes.mT[..., None] * self.inputs[:, :, None]

    def squared_gradients(self, weights: Tensor) -> Tensor:
        """R = Σ_i ‖Dr(x_i)‖² = Σ_i ‖x_i‖² Σ_j φ′(θ_j·x_i)², (S,)."""
        squares = self.activation.derivative(self.preactivations(weights)).square()
        return (squares.sum(1) * self._squared_norms).sum(1)

    def regularizer_gradient(self, weights: Tensor) -> Tensor:
        """2Σ_i D²r(x_i) g_i, g = (I − ηJJᵀ)⁻¹J, (S, m, d); for η = 0 it is ∇R. J is the Jacobian, a row per example.

        Label noise drifts along the manifold by −η²σ²P_T of it a step, see `lnsgd.measures.projected_flow`: what a
        fluctuation of covariance C adds to a step's gradient is 2Σ_i D²r(x_i) C Dr(x_i), and at the step η
        C = ησ² Jᵀ(JJᵀ)⁻¹(I − ηJJᵀ)⁻¹J.
        """
        jacobian = self.jacobian(weights)
        flat = jacobian.flatten(2)
        eye = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
        directions = torch.linalg.solve(eye - self.lr * flat @ flat.mT, flat).view_as(jacobian)
        # D²r(x_i) of neuron j is φ″(θ_j·x_i) x_i x_iᵀ.
        along = (directions * self.inputs[:, :, None]).sum(-1).mT
        return 2 * (self.activation.second_derivative(self.preactivations(weights)) * along) @ self.inputs

    def trace(self, weights: Tensor) -> Tensor:
        """Tr D²L = 2R + 2Σ_i (r(x_i) − y_i)‖x_i‖² Σ_j φ″(θ_j·x_i), (S,).

        At zero loss it is 2R (Lemma 2; its statement in the paper lacks the 2 that its proof has).
        """
        curvature = self.activation.second_derivative(self.preactivations(weights)).sum(1)
        rest = (self.residuals(weights) * self._squared_norms * curvature).sum(1)
        return 2 * (self.squared_gradients(weights) + rest)

    def shares(self, neurons: int) -> Tensor:
        """φ⁻¹(y_i/m), what every neuron has on x_i where all are equal, (S, n)."""
        return self.activation.inverse(self.targets / neurons)

    def least_trace(self, neurons: int) -> Tensor:
        """2m Σ_i ‖x_i‖² φ′(φ⁻¹(y_i/m))², (S,): no network with zero loss has a smaller trace.

        It is attained where all θ_j·x_i = φ⁻¹(y_i/m), for any targets if the inputs are linearly independent (n ≤ d).
        """
        return 2 * neurons * (self.activation.derivative(self.shares(neurons)).square() * self._squared_norms).sum(1)

    def distance(self, weights: Tensor) -> Tensor:
        """Largest |θ_j·x_i − φ⁻¹(y_i/m)| over neurons and examples, (S,)."""
        neurons = weights.shape[1]
        return (self.preactivations(weights) - self.shares(neurons)[:, None]).abs().amax((1, 2))

    def rate(self, neurons: int) -> Tensor:
        """Rate κ at which dθ/ds = −P_T ∇R reaches equal neurons in the end, for n ≤ d and ‖x_i‖ = 1, (S,).

        Small differences δ_j of the neurons' preactivations obey dδ_j/ds = −XXᵀ diag(2φ′φ‴)δ_j at φ⁻¹(y_i/m), so κ is
        the smallest eigenvalue of D^½XXᵀD^½, D = diag(2φ′φ‴). Distances fall like exp(−κs), R like exp(−2κs). It is
        at least 2·λ_min(XXᵀ)·min φ′φ‴, as in Theorem 3.
        """
        # φ‴ = 6.
        root = (12 * self.activation.derivative(self.shares(neurons))).sqrt()
        gram = self.inputs @ self.inputs.mT
        return torch.linalg.eigvalsh(root[:, :, None] * gram * root[:, None])[:, 0]

    @property
    def _squared_norms(self) -> Tensor:
        return self.inputs.square().sum(-1)


@dataclass(frozen=True)
class Sharpness:
    """Numbers of one network on one data set; see `SumNetwork`.

    Attributes:
        loss: Σ_i (r(x_i) − y_i)².
        trace: Tr D²L, exact.
        gradient_trace: 2Σ_i ‖Dr(x_i)‖², the trace at zero loss.
        least_trace: Smallest trace at zero loss.
        distance: Largest |θ_j·x_i − φ⁻¹(y_i/m)|.
        manifold_trace: The trace at the point of zero loss that `lnsgd.measures.retract` leads to; NaN where it does
            not reach one. Label noise keeps the weights away from zero loss, which moves ``gradient_trace`` both ways.
    """

    loss: float
    trace: float
    gradient_trace: float
    least_trace: float
    distance: float
    manifold_trace: float


def sharpness(net: MLP, inputs: Tensor, targets: Tensor) -> Sharpness:
    """How far a network is from the flattest one that fits the data, in float64.

    Args:
        net: An MLP with one hidden layer of `CubicPlusLinear`, no biases, and output weights of one.
        inputs: All examples, (n, d).
        targets: (n, 1).

    Raises:
        ValueError: another network.
    """
    weights, problem = sum_network(net, inputs, targets)
    return Sharpness(
        loss=problem.residuals(weights).square().sum().item(),
        trace=problem.trace(weights).item(),
        gradient_trace=2 * problem.squared_gradients(weights).item(),
        least_trace=problem.least_trace(weights.shape[1]).item(),
        distance=problem.distance(weights).item(),
        manifold_trace=_manifold_trace(problem, weights),
    )


def _manifold_trace(problem: SumNetwork, weights: Tensor) -> float:
    try:
        return 2 * problem.squared_gradients(retract(problem, weights)).item()
    except ValueError:
        return math.nan


def sum_network(net: MLP, inputs: Tensor, targets: Tensor) -> tuple[Tensor, SumNetwork]:
    """A network's weights (1, m, d) and its problem, in float64; see `sharpness` for arguments and errors.

    Args:
        net: The network.
        inputs: (n, d), all dimensions but the first are flattened.
        targets: (n, 1).
    """
    parameters = dict(net.named_parameters())
    plain = set(parameters) == {"layers.0.weight", "layers.1.weight"} and net.widths[-1] == 1
    activation = net.activations[0] if len(net.activations) else None
    if not (plain and isinstance(activation, CubicPlusLinear) and bool((parameters["layers.1.weight"] == 1).all())):
        raise ValueError(
            "sharpness has closed forms for Σ_j φ(θ_j·x): an MLP with one hidden layer of cubic activation, "
            "bias = false and output weights of 1 (init Constant)"
        )
    weights = parameters["layers.0.weight"].detach().double()
    return weights[None], SumNetwork(inputs.flatten(1).double()[None], targets.double().T, activation)
