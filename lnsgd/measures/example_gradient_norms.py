"""How much each example pulls at the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.example_gradients import ExampleGradients
from lnsgd.measures.curvature.problem import (
    Batches,
    LossFunction,
    NonFiniteError,
    Problem,
    chunks,
    differentiating,
)


@dataclass(frozen=True)
class ExampleGradientNorms:
    """‖∇ℓ_i‖₂ of every example, float64 on the model's device, in the order of the data.

    Attributes:
        total: Over all trainable parameters, (n,).
        per_tensor: Of each tensor alone by name of the parameter, (n,) each.
    """

    total: Tensor
    per_tensor: dict[str, Tensor]


def example_gradient_norms(model: nn.Module, loss: LossFunction, data: Batches) -> ExampleGradientNorms:
    """‖∇_θ ℓ(f(x_i), y_i)‖₂ of every example i, model in eval mode.

    One forward and one backward pass for all examples of a batch: the gradients themselves are not formed where a
    layer is linear (Goodfellow, 2015), and not summed in convolutions and BatchNorm. Other parameters cost
    a gradient for each example.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        data: Batches (inputs, labels) on the model's device.

    Raises:
        ValueError: no examples, data that can be read only once, no trainable parameter, outputs that are not floating
            point, a loss that is not per example, or an input that a layer's successor has overwritten.
        NonFiniteError: a loss or gradient is NaN or infinite.
    """
    found = []
    with differentiating(model):
        problem = Problem(model, loss, data)
        gradients = ExampleGradients(model, problem.named)
        for inputs, labels in problem.batches():
            for some, of_them in chunks(inputs, labels):
                forward = gradients.forward(some)
                found.append(forward.squared_norms(_slopes(problem, forward.outputs, of_them)))
    squares = torch.cat(found) if found else torch.zeros(0, len(problem.named))
    if not len(squares):
        raise ValueError("no examples to take gradients of; the data is empty")
    if not squares.isfinite().all():
        raise NonFiniteError("the loss or its derivatives are not finite (NaN or infinite) on this data")
    return ExampleGradientNorms(squares.sum(1).sqrt(), dict(zip(problem.named, squares.sqrt().unbind(1))))


def _slopes(problem: Problem, outputs: Tensor, labels: Tensor) -> Tensor:
    """∂ℓ_i/∂outputs of every example, in the outputs' shape."""
    free = outputs.detach().requires_grad_()
    losses = problem.losses(free, labels)
    # A loss that is not finite may leave no trace in derivatives.
    slopes = torch.zeros_like(outputs) + 0 * losses.detach().view(-1, *[1] * (outputs.ndim - 1))
    if losses.requires_grad:
        slopes += torch.autograd.grad(losses.sum(), free, materialize_grads=True)[0]
    return slopes
