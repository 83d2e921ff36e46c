"""How steep the loss is."""

from dataclasses import dataclass

import torch
from torch import nn

from lnsgd.measures.curvature.problem import Batches, LossFunction, Problem, Share, chunks, differentiating
from lnsgd.measures.curvature.products import by_tensor


@dataclass(frozen=True)
class GradientNorm:
    """‖∇L‖₂ over all trainable parameters together and for each tensor alone.

    Attributes:
        total: Over all; its square is the sum of the tensors' squares.
        per_tensor: By name of the parameter.
        samples: Number of examples.
    """

    total: float
    per_tensor: dict[str, float]
    samples: int


def gradient_norm(model: nn.Module, loss: LossFunction, data: Batches, *, share: Share = Share()) -> GradientNorm:  # noqa: B008
    """‖∇L‖₂, L the *mean* loss over the data, model in eval mode; batches are summed in float64.

    On several processes the gradients are summed, P numbers each.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        data: Batches (inputs, labels) on the model's device.
        share: This process's share of the data, where several take it together.

    Raises:
        ValueError: no examples, data that can be read only once, no trainable parameter, outputs that are not floating
            point, or a loss that is not per example.
        NonFiniteError: the loss or its gradient is NaN or infinite.
    """
    with differentiating(model):
        problem = Problem(model, loss, data, share)
        gradient = torch.zeros(problem.size, dtype=torch.float64, device=problem.device)
        samples = 0
        for inputs, labels in problem.batches():
            for some, of_them in chunks(inputs, labels):
                total = problem.losses(problem.outputs(some), of_them).sum()
                gradient += 0 * total.detach()  # a loss that is not finite may leave no trace in derivatives
                if total.requires_grad:
                    parts = torch.autograd.grad(total, problem.parameters, materialize_grads=True)
                    gradient += torch.cat([part.flatten() for part in parts])
            samples += len(inputs)
        mean, samples = problem.mean(gradient, samples)
    squares = by_tensor(mean.square(), problem.parameters)
    per_tensor = dict(zip(problem.named, squares.sqrt().tolist()))
    return GradientNorm(squares.sum().sqrt().item(), per_tensor, samples)
