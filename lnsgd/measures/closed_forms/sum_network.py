"""Closed forms of the network r(x) = Σ_j φ(θ_j·x) on the manifold of zero loss (Gatmiry et al., 2024).

The loss is Σ_i (r(x_i) − y_i)², a sum without ½. There are m neurons with weights θ_j, and n examples in d dimensions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lnsgd.measures.closed_forms.projected_flow import retract
from lnsgd.models import MLP, CubicPlusLinear


@dataclass(frozen=True)
class SumNetwork:
    """S problems of one size, each with examples of its own; the weights of all are one tensor (S, m, d).

    Tensors keep their precision: use float64 if small differences count.

    Attributes:
        inputs: Inputs x_i of each problem, shape (S, n, d).
        targets: Targets y_i, shape (S, n).
        activation: The activation φ.
        lr: Step size η of the gradient descent whose drift is `regularizer_gradient`.
    """

    inputs: Tensor
    targets: Tensor
    activation: CubicPlusLinear
    lr: float = 0.0

    def preactivations(self, weights: Tensor) -> Tensor:
        """Compute the preactivations θ_j·x_i, shape (S, m, n)."""
        return weights @ self.inputs.mT

    def residuals(self, weights: Tensor) -> Tensor:
        """Compute r(x_i) − y_i, shape (S, n); all are zero on the manifold."""
        return self.activation(self.preactivations(weights)).sum(1) - self.targets

    def jacobian(self, weights: Tensor) -> Tensor:
        """Compute Dr(x_i), the gradients of the outputs with respect to the weights, shape (S, n, m, d)."""
        slopes = self.activation.derivative(self.preactivations(weights))
        return slopes.mT[..., None] * self.inputs[:, :, None]

    def squared_gradients(self, weights: Tensor) -> Tensor:
        """Compute R = Σ_i ‖Dr(x_i)‖² = Σ_i ‖x_i‖² Σ_j φ′(θ_j·x_i)², shape (S,)."""
        squares = self.activation.derivative(self.preactivations(weights)).square()
        return (squares.sum(1) * self._squared_norms).sum(1)

    def regularizer_gradient(self, weights: Tensor) -> Tensor:
        """Compute 2Σ_i D²r(x_i) g_i, g = (I − ηJJᵀ)⁻¹J, shape (S, m, d); for η = 0 it is ∇R.

        J is the Jacobian with a row per example. With label noise the weights drift along the manifold by −η²σ²P_T
        times this vector in a step (see `projected_flow`): a fluctuation of covariance C adds 2Σ_i D²r(x_i) C Dr(x_i)
        to the gradient of a step, and at the step size η the covariance is C = ησ² Jᵀ(JJᵀ)⁻¹(I − ηJJᵀ)⁻¹J.
        """
        jacobian = self.jacobian(weights)
        flat = jacobian.flatten(2)
        eye = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
        directions = torch.linalg.solve(eye - self.lr * flat @ flat.mT, flat).view_as(jacobian)
        # D²r(x_i) of neuron j is φ″(θ_j·x_i) x_i x_iᵀ.
        along = (directions * self.inputs[:, :, None]).sum(-1).mT
        return 2 * (self.activation.second_derivative(self.preactivations(weights)) * along) @ self.inputs

    def trace(self, weights: Tensor) -> Tensor:
        """Compute Tr D²L = 2R + 2Σ_i (r(x_i) − y_i)‖x_i‖² Σ_j φ″(θ_j·x_i), shape (S,).

        At zero loss it is 2R (Lemma 2, whose statement in the paper lacks the factor 2 of its proof).
        """
        curvature = self.activation.second_derivative(self.preactivations(weights)).sum(1)
        rest = (self.residuals(weights) * self._squared_norms * curvature).sum(1)
        return 2 * (self.squared_gradients(weights) + rest)

    def shares(self, neurons: int) -> Tensor:
        """Compute φ⁻¹(y_i/m), the preactivation of every neuron on x_i if all neurons are equal, shape (S, n)."""
        return self.activation.inverse(self.targets / neurons)

    def least_trace(self, neurons: int) -> Tensor:
        """Compute 2m Σ_i ‖x_i‖² φ′(φ⁻¹(y_i/m))², shape (S,): no network with zero loss has a smaller trace.

        It is attained if all θ_j·x_i = φ⁻¹(y_i/m), for any targets if the inputs are linearly independent (n ≤ d).
        """
        return 2 * neurons * (self.activation.derivative(self.shares(neurons)).square() * self._squared_norms).sum(1)

    def distance(self, weights: Tensor) -> Tensor:
        """Compute the largest |θ_j·x_i − φ⁻¹(y_i/m)| over neurons and examples, shape (S,)."""
        neurons = weights.shape[1]
        return (self.preactivations(weights) - self.shares(neurons)[:, None]).abs().amax((1, 2))

    def rate(self, neurons: int) -> Tensor:
        """Compute the rate κ at which dθ/ds = −P_T ∇R finally approaches equal neurons, shape (S,).

        For n ≤ d and ‖x_i‖ = 1. Small differences δ_j of the neurons' preactivations obey
        dδ_j/ds = −XXᵀ diag(2φ′φ‴)δ_j at φ⁻¹(y_i/m), so κ is the smallest eigenvalue of D^½XXᵀD^½, D = diag(2φ′φ‴).
        Distances fall like exp(−κs), R like exp(−2κs). κ is at least 2·λ_min(XXᵀ)·min φ′φ‴, as in Theorem 3.
        """
        # φ‴ = 6.
        root = (12 * self.activation.derivative(self.shares(neurons))).sqrt()
        gram = self.inputs @ self.inputs.mT
        return torch.linalg.eigvalsh(root[:, :, None] * gram * root[:, None])[:, 0]

    @property
    def _squared_norms(self) -> Tensor:
        return self.inputs.square().sum(-1)


@dataclass(frozen=True)
class SumNetworkSharpness:
    """Closed forms of one network on one data set; see `SumNetwork`.

    Attributes:
        loss: Σ_i (r(x_i) − y_i)².
        trace: Tr D²L, exact.
        gradient_trace: 2Σ_i ‖Dr(x_i)‖², the trace at zero loss.
        least_trace: Smallest trace at zero loss.
        distance: Largest |θ_j·x_i − φ⁻¹(y_i/m)|.
        manifold_trace: Trace at the point of zero loss to which `retract` leads; NaN if it does not reach one. Label
            noise keeps the weights away from zero loss, which changes ``gradient_trace`` in both directions.
    """

    loss: float
    trace: float
    gradient_trace: float
    least_trace: float
    distance: float
    manifold_trace: float


def sharpness(net: MLP, inputs: Tensor, targets: Tensor) -> SumNetworkSharpness:
    """Compute traces of a network and of the flattest network that fits the data, in float64.

    Args:
        net: An MLP with one hidden layer of `CubicPlusLinear`, without biases, and with output weights of one.
        inputs: Inputs of all examples, shape (n, d).
        targets: Targets, shape (n, 1).

    Raises:
        ValueError: another network.
    """
    weights, problem = sum_network(net, inputs, targets)
    return SumNetworkSharpness(
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
    """Return a network's weights, shape (1, m, d), and its problem, in float64.

    Args:
        net: An MLP with one hidden layer of `CubicPlusLinear`, without biases, and with output weights of one.
        inputs: Inputs, shape (n, …); all dimensions but the first are flattened.
        targets: Targets, shape (n, 1).

    Raises:
        ValueError: another network.
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
