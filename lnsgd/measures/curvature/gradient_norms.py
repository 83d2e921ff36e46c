"""Norms of gradients: of the mean loss, of the loss of each example, and of the network's output."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.example_gradients import ExampleGradients
from lnsgd.measures.curvature.problem import Problem, chunks, differentiating
from lnsgd.measures.curvature.products import by_tensor
from lnsgd.measures.evaluation import WHOLE, LossFunction, Share, check_per_example
from lnsgd.measures.forward import Batches, Inputs, OutputsFunction, outputs_of
from lnsgd.measures.nonfinite import NonFiniteError


@dataclass(frozen=True)
class GradientNorms:
    """Norm ‖∇L‖₂ of the gradient of the mean loss.

    Attributes:
        total: Norm over all trainable parameters; its square is the sum of the tensors' squares.
        per_tensor: Norm over each tensor alone, by name of the parameter.
        samples: Number of examples.
    """

    total: float
    per_tensor: dict[str, float] = field(repr=False)
    samples: int


def gradient_norm(
    model: nn.Module, loss: LossFunction, data: Batches, *, share: Share = WHOLE, outputs: OutputsFunction = outputs_of
) -> GradientNorms:
    """Compute ‖∇L‖₂, L the *mean* loss over the data, with the model in eval mode.

    The gradients of batches are summed in float64; on several processes P numbers each are sent.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        data: Batches (inputs, labels) on the model's device.
        share: This process's share of the data, if several processes take the measure together.
        outputs: How the network is called, ``outputs(network, inputs) -> (B, …)``, see `lnsgd.measures.outputs_of`.

    Raises:
        ValueError: no examples, data that can be read only once, no trainable parameter, outputs that are not floating
            point, or a loss that is not per example.
        NonFiniteError: the loss or its gradient is NaN or infinite.

    Example:
        >>> from lnsgd.losses import SquaredLoss
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = net.weight.data.fill_(2.0)
        >>> gradient_norm(net, SquaredLoss(), [(torch.ones(1, 1), torch.zeros(1, 1))]).total
        4.0
    """
    with differentiating(model):
        problem = Problem(model, loss, data, share, outputs)
        gradient = torch.zeros(problem.size, dtype=torch.float64, device=problem.device)
        samples = 0
        for inputs, labels in problem.batches():
            for some, of_them in chunks(inputs, labels):
                total = problem.losses(problem.outputs(some), of_them).sum()
                gradient += 0 * total.detach()  # a loss that is not finite may leave no trace in derivatives
                if total.requires_grad:
                    parts = torch.autograd.grad(total, problem.parameters, materialize_grads=True)
                    gradient += torch.cat([part.flatten() for part in parts])
            samples += len(labels)
        mean, samples = problem.mean(gradient, samples)
    squares = by_tensor(mean.square(), problem.parameters)
    per_tensor = dict(zip(problem.named, squares.sqrt().tolist()))
    return GradientNorms(squares.sum().sqrt().item(), per_tensor, samples)


@dataclass(frozen=True)
class ExampleGradientNorms:
    """Norm ‖∇ℓ_i‖₂ of the gradient of the loss of every example, float64 on the model's device.

    Attributes:
        total: Norms over all trainable parameters in the order of the data, shape (n,).
        per_tensor: Norms over each tensor alone by name of the parameter, shape (n,) each.
    """

    total: Tensor
    per_tensor: dict[str, Tensor] = field(repr=False)


def example_gradient_norms(
    model: nn.Module, loss: LossFunction, data: Batches, *, outputs: OutputsFunction = outputs_of
) -> ExampleGradientNorms:
    """Compute ‖∇_θ ℓ(f(x_i), y_i)‖₂ of every example i, with the model in eval mode.

    One forward and one backward pass for all examples of a batch: the gradients themselves are not formed in linear
    layers (Goodfellow, 2015), and not summed in convolutions and BatchNorm. Other parameters cost a gradient for each
    example.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        data: Batches (inputs, labels) on the model's device.
        outputs: How the network is called, ``outputs(network, inputs) -> (B, …)``, see `lnsgd.measures.outputs_of`.

    Raises:
        ValueError: no examples, data that can be read only once, no trainable parameter, outputs that are not floating
            point, a loss that is not per example, or an input that a layer's successor has overwritten.
        NonFiniteError: a loss or gradient is NaN or infinite.

    Example:
        >>> from lnsgd.losses import SquaredLoss
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = net.weight.data.fill_(2.0)
        >>> example_gradient_norms(net, SquaredLoss(), [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]).total
        tensor([ 4., 36.], dtype=torch.float64)
    """
    found = []
    with differentiating(model):
        problem = Problem(model, loss, data, outputs=outputs)
        gradients = ExampleGradients(model, problem.named, outputs)
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
    """Return ∂ℓ_i/∂outputs of every example, in the outputs' shape."""
    free = outputs.detach().requires_grad_()
    losses = check_per_example(problem.loss(free.clone(), labels.clone()), len(outputs))
    # A loss that is not finite may leave no trace in derivatives.
    slopes = torch.zeros_like(outputs) + 0 * losses.detach().view(-1, *[1] * (outputs.ndim - 1))
    if losses.requires_grad:
        slopes += torch.autograd.grad(losses.sum(), free, materialize_grads=True)[0]
    return slopes


def implicit_regularizer(
    model: nn.Module, data: Batches, *, share: Share = WHOLE, outputs: OutputsFunction = outputs_of
) -> float:
    """Compute (1/n)Σ_i ‖∇_θ h(x_i, θ)‖², h the network's output (Blanc et al., eq. 2), with the model in eval mode.

    It is exact. For C outputs it is the sum over them, Σ_c ‖∇_θ h_c(x_i)‖², which takes C backward passes. At zero
    error the trace of the Hessian of the squared loss (1/n)Σ_i (h(x_i) − y_i)² (without ½) is twice this number. θ are
    the trainable parameters.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        data: Batches (inputs, labels) on the model's device; labels are not used.
        share: This process's share of the data, if several processes take the measure together.
        outputs: How the network is called, ``outputs(network, inputs) -> (B, …)``, see `lnsgd.measures.outputs_of`.

    Raises:
        ValueError: no examples, no trainable parameter, or outputs that are not floating point.
        NonFiniteError: a gradient is NaN or infinite.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> implicit_regularizer(net, [(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.zeros(2))])
        4.0
    """
    with differentiating(model):
        problem = Problem(model, lambda outputs, labels: outputs.flatten(1).sum(1), data, share, outputs)
        gradients = ExampleGradients(model, problem.named, outputs)
        total = torch.zeros((), dtype=torch.float64, device=problem.device)
        samples = 0
        for inputs, labels in problem.batches():
            for some, _ in chunks(inputs, labels):
                total += _squared_output_gradients(gradients, some)
            samples += len(labels)
        mean, _ = problem.mean(total, samples, over="examples")
    return mean.item()


def _squared_output_gradients(gradients: ExampleGradients, inputs: Inputs) -> Tensor:
    """Sum ‖∇_θ h_c(x_i)‖² over examples and outputs."""
    forward = gradients.forward(inputs)
    count = forward.outputs[0].numel()
    total = torch.zeros((), dtype=torch.float64, device=forward.outputs.device)
    for c in range(count):
        cotangent = forward.outputs.new_zeros(len(forward.outputs), count)
        cotangent[:, c] = 1
        total += forward.squared_norms(cotangent.view(forward.outputs.shape)).sum()
    return total
