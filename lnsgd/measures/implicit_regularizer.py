"""Blanc et al.'s implicit regularizer: the mean squared norm of the network's gradient."""

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.example_gradients import ExampleGradients
from lnsgd.measures.curvature.problem import Batches, Problem, Share, chunks, differentiating


def implicit_regularizer(model: nn.Module, data: Batches, *, share: Share = Share()) -> float:  # noqa: B008
    """(1/n)Σ_i ‖∇_θ h(x_i, θ)‖², h the network's output (Blanc et al., eq. 2); exact, model in eval mode.

    For C outputs Σ_c ‖∇_θ h_c(x_i)‖², which takes C backward passes. At zero error the trace of the Hessian of the
    squared loss (1/n)Σ_i (h(x_i) − y_i)² is twice this. θ are the trainable parameters; labels are not used.

    Args:
        model: Any module; left as it is.
        data: Batches (inputs, labels) on the model's device.
        share: This process's share of the data, where several take it together.

    Raises:
        ValueError: no examples, no trainable parameter, or outputs that are not floating point.
        NonFiniteError: a gradient is NaN or infinite.
    """
    with differentiating(model):
        problem = Problem(model, lambda outputs, labels: outputs.flatten(1).sum(1), data, share)
        gradients = ExampleGradients(model, problem.named)
        total = torch.zeros((), dtype=torch.float64, device=problem.device)
        samples = 0
        for inputs, labels in problem.batches():
            for some, _ in chunks(inputs, labels):
                total += _squared_norms(gradients, problem, some)
            samples += len(inputs)
        mean, _ = problem.mean(total, samples)
    return mean.item()


def _squared_norms(gradients: ExampleGradients, problem: Problem, inputs: Tensor) -> Tensor:
    forward = gradients.forward(inputs)
    total = torch.zeros((), dtype=torch.float64, device=problem.device)
    count = forward.outputs[0].numel()
    for c in range(count):
        cotangent = forward.outputs.new_zeros(len(inputs), count)
        cotangent[:, c] = 1
        total += forward.squared_norms(cotangent.view(forward.outputs.shape)).sum()
    return total
