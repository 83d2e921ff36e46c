"""The change of the norms of the weights by one step of SGD."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import check_real, evaluation_mode, trainable
from lnsgd.measures.forward import outputs_of
from lnsgd.measures.nonfinite import NonFiniteError, finite_examples, is_finite

Numbers = TypeVar("Numbers", float, np.ndarray)


def change_of_square(alignment: Numbers, squared_gradient: Numbers, lr: Numbers) -> Numbers:
    """Compute ‖W − h∇‖² − ‖W‖² = −2h⟨W, ∇⟩ + h²‖∇‖², without the cancellation of taking the difference.

    Args:
        alignment: Inner product ⟨W, ∇⟩.
        squared_gradient: Squared norm ‖∇‖².
        lr: Size of the step h.

    Example:
        >>> change_of_square(3.0, 1.0, lr=1.0)
        -5.0
    """
    return lr * (lr * squared_gradient - 2 * alignment)


@dataclass(frozen=True)
class TensorStep:
    """One tensor W of the network and the gradient ∇ of the mean loss with respect to it.

    Attributes:
        squared_norm: Squared Frobenius norm ‖W‖².
        alignment: ⟨W, ∇⟩; −2h times it is the first-order part of the change.
        squared_gradient: ‖∇‖².
        guaranteed: Step size below which the norm falls, known without the gradient: 2·euler/(bound of ‖∇‖)², see
            `norm_step`. If it is zero or negative, nothing is guaranteed.
    """

    squared_norm: float
    alignment: float
    squared_gradient: float
    guaranteed: float

    def change(self, lr: float) -> float:
        """Compute ‖W − h∇‖² − ‖W‖² for a step of size h."""
        return change_of_square(self.alignment, self.squared_gradient, lr)

    @property
    def largest(self) -> float:
        """Step size 2⟨W, ∇⟩/‖∇‖² up to which the norm falls (0 < h < largest); NaN if the gradient is zero."""
        return 2 * self.alignment / self.squared_gradient if self.squared_gradient else math.nan


@dataclass(frozen=True)
class NormStep:
    """A step of SGD on a batch: its tensors, and the value of ⟨W, ∇⟩ by Euler's identity.

    Attributes:
        euler: Σ_o o·∂L/∂o, summed over the outputs o of all examples.
        tensors: Trained tensors by name.
    """

    euler: float
    tensors: dict[str, TensorStep]


def norm_step(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, labels: Tensor) -> NormStep:
    """Compute how a step of SGD on a batch changes the norm of every trained tensor (Cornacchia et al., Theorem 1).

    If the outputs are homogeneous of degree one in a tensor W (without biases; ReLU, leaky ReLU, maximum pooling),
    Euler's identity gives ⟨W, ∂o/∂W⟩ = o for every output o, so that ⟨W, ∇⟩ = Σ_o o·∂L/∂o for the mean loss L, the same
    number for each such tensor. With one output and a decreasing loss ℓ(y·N(x)), it is positive on a misclassified
    example (y·N < 0): a small step lowers the norm of every layer.

    If all trained and frozen parameters are the weights of a chain of linear maps with 1-Lipschitz activations φ(0) = 0
    between them, ‖∇_W L‖ ≤ Σ_i ‖∂L/∂o_i‖·‖x_i‖·Π_{V≠W}‖V‖, V the other weights. This bound gives ``guaranteed``, which
    means nothing for other networks.

    Args:
        model: Any module; it is in eval mode while it is measured, and is not changed.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        inputs: Inputs, shape (B, …), in the model's precision; use float64 to see the identity hold.
        labels: Targets of the loss, shape (B, …).

    Raises:
        ValueError: the model has no trainable parameter, or a complex one.
        NonFiniteError: a weight, an input, an output or a loss is NaN or infinite.

    Example:
        >>> from lnsgd.losses import HingeLoss
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 1.0]]))
        >>> step = norm_step(net, HingeLoss(beta=0), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> step.euler, step.tensors["weight"].largest, step.tensors["weight"].change(lr=1.0)
        (3.0, 6.0, -5.0)
    """
    trained = trainable(model)
    check_real(trained)
    with torch.enable_grad(), evaluation_mode(model):
        outputs = outputs_of(model, inputs)
        losses = loss(outputs, labels)
        if not (is_finite(model) and finite_examples(inputs, outputs, losses, labels).all()):
            raise NonFiniteError("a weight, an input, an output or a loss is not finite (NaN or infinite)")
        of_outputs, *gradients = torch.autograd.grad(
            losses.mean(), [outputs, *trained.values()], materialize_grads=True
        )
    euler = _inner(outputs, of_outputs)
    reach = (of_outputs.flatten(1).double().norm(dim=1) * inputs.flatten(1).double().norm(dim=1)).sum().item()
    product = math.prod(_inner(p, p) for p in model.parameters())
    tensors = {}
    for (name, weight), gradient in zip(trained.items(), gradients):
        square = _inner(weight, weight)
        others = reach**2 * product / square if square else math.nan
        guaranteed = 2 * euler / others if others else math.nan
        tensors[name] = TensorStep(square, _inner(weight, gradient), _inner(gradient, gradient), guaranteed)
    return NormStep(euler, tensors)


def _inner(one: Tensor, other: Tensor) -> float:
    return (one.detach().double() * other.detach().double()).sum().item()
