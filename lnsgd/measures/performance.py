"""How well a network fits data: mean loss and misclassified fraction."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.losses import predicted_classes
from lnsgd.measures.evaluation import evaluation_mode, finite_examples, is_finite, outputs_of, per_example


@dataclass(frozen=True)
class Performance:
    """Mean loss and, for class labels, the fraction of misclassified examples (NaN for real targets).

    Attributes:
        loss: Mean over the examples; NaN where a weight, input, output or real target is not finite.
        error: Fraction of examples that are misclassified, 0 to 1; NaN for real targets, and where the loss is.
    """

    loss: float
    error: float


def performance(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Iterable[tuple[Tensor, Tensor]],
    *,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Performance:
    """Mean loss and error over the data, model in eval mode, summed in float64.

    Args:
        model: Any module; it stays as it is.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        data: Batches (inputs, labels), on the model's device.
        reduce: Sums a tensor over processes that each hold a part of the data.

    Raises:
        ValueError: no examples, outputs that are not one floating-point tensor, or a loss that is not per example.

    Example:
        >>> from lnsgd.losses import SquaredLoss
        >>> x = torch.tensor([[1.0], [-2.0]])
        >>> performance(nn.Identity(), SquaredLoss(), [(x, torch.tensor([1, 1]))])
        Performance(loss=4.5, error=0.5)
    """
    total, wrong, examples = 0.0 if is_finite(model) else math.nan, 0, 0
    real = False
    with torch.no_grad(), evaluation_mode(model):
        for inputs, labels in data:
            outputs = outputs_of(model, inputs)
            losses = per_example(loss(outputs, labels), len(outputs))
            losses = losses.where(finite_examples(inputs, outputs, labels), math.nan)
            total += losses.sum(dtype=torch.float64).item()
            examples += len(labels)
            real = labels.is_floating_point()
            if not real:
                wrong += int((predicted_classes(outputs) != labels).sum())
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    total, wrong, examples = reduce(torch.tensor([total, wrong, examples], dtype=torch.float64, device=device)).tolist()
    if examples == 0:
        raise ValueError("no examples to evaluate on; the data is empty")
    return Performance(total / examples, wrong / examples if math.isfinite(total) and not real else math.nan)
