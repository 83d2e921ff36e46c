"""Mean loss of a network on data, and the fraction of examples that it misclassifies."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.losses import predicted_classes
from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.forward import Batches, OutputsFunction, outputs_of, tensors_in
from lnsgd.measures.labels import align_labels, check_examples_apart, example_losses, unlabelled_class
from lnsgd.measures.nonfinite import finite_examples, is_finite


@dataclass(frozen=True)
class LossAndError:
    """Mean loss and misclassified fraction.

    Attributes:
        loss: Mean over the labelled examples, or over their labelled positions; NaN if a weight, input, output or real
            target is not finite.
        error: Fraction of labels that are predicted wrongly, 0 to 1; NaN for real targets, and if the loss is NaN.
    """

    loss: float
    error: float


def performance(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Batches,
    *,
    outputs: OutputsFunction = outputs_of,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> LossAndError:
    """Compute the mean loss and the error over the data, with the model in eval mode, summed in float64.

    An example has one label, or one for each of its positions (tokens, pixels) or binary attributes; the table in
    ``lnsgd.measures.labels`` says which shapes belong together. The error is a fraction of all labels. What has the
    ``ignore_index`` of the loss as its label (−100 if the loss says none) counts neither in the loss nor in the error.

    Args:
        model: Any module; it is not changed.
        loss: Loss of each example, ``loss(outputs, labels) -> (B,)``, which is averaged over examples; or of each
            label, in the labels' shape, which is averaged over the labels of all examples.
        data: Batches (inputs, labels), on the model's device.
        outputs: How the network is called, see `lnsgd.measures.outputs_of`.
        reduce: Sums a tensor over processes that each hold a part of the data.

    Raises:
        ValueError: no labelled examples; outputs that are not one floating-point tensor; labels whose shape does not
            belong to the outputs, or that are not classes of them; a loss that is not per example or label, or that
            depends on the other examples.

    Example:
        >>> from lnsgd.losses import SquaredLoss
        >>> x = torch.tensor([[1.0], [-2.0]])
        >>> performance(nn.Identity(), SquaredLoss(), [(x, torch.tensor([1, 1]))])
        LossAndError(loss=4.5, error=0.5)
    """
    sums = torch.zeros(4, dtype=torch.float64)  # losses, their weights, wrong predictions, labels
    real = checked = False
    hidden: int | None = None  # the label that a loss of examples with several labels leaves out
    with torch.no_grad(), evaluation_mode(model):
        for inputs, labels in data:
            found = outputs_of(model, inputs, outputs)
            of_examples = example_losses(loss, found, labels)
            losses, weights = of_examples.sums, of_examples.weights
            if not checked and len(labels) > 1:
                check_examples_apart(loss, found, labels)
                checked = True
            finite = finite_examples(*tensors_in(inputs), found, labels)
            sums[0] += losses.where(finite | (weights == 0), math.nan).sum(dtype=torch.float64).item()
            sums[1] += weights.sum().item()
            real = labels.is_floating_point()
            if not real:
                unlabelled = of_examples.unlabelled
                if not of_examples.is_by_label:
                    hidden = unlabelled_class(loss, found, labels, losses) if hidden is None else hidden
                    unlabelled = hidden
                aligned = align_labels(found, labels, unlabelled)
                mistakes = (predicted_classes(aligned.scores) != aligned.labels) & aligned.labelled
                sums[2] += int(mistakes.sum())
                sums[3] += int(aligned.labelled.sum())
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    sums[0] += 0.0 if is_finite(model) else math.nan
    total, weight, wrong, labelled = reduce(sums.to(device)).tolist()
    if weight == 0:
        raise ValueError("no examples to evaluate on; the data is empty, or no example has a label")
    is_classified = math.isfinite(total) and not real and labelled > 0
    return LossAndError(total / weight, wrong / labelled if is_classified else math.nan)
