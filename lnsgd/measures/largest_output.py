"""How far a network's outputs are from zero."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import evaluation_mode, finite_examples, is_finite, outputs_of


def largest_output(
    model: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    *,
    reduce: Callable[[Tensor], Tensor] = lambda largest: largest,
) -> float:
    """Max |N(x)_c| over the data's inputs x and the outputs c, model in eval mode.

    Theorem 3 of Cornacchia et al. bounds it; NaN where a weight, an input or an output is not finite.

    Args:
        model: Any module; it stays as it is.
        data: Batches (inputs, labels), on the model's device; labels do not count.
        reduce: Maximum of a tensor over processes that each hold a part of the data.

    Raises:
        ValueError: no examples, or outputs that are not one floating-point tensor.

    Example:
        >>> largest_output(nn.Identity(), [(torch.tensor([[1.0, -3.0], [2.0, 0.5]]), torch.tensor([0, 1]))])
        3.0
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    largest = torch.tensor([-1.0], dtype=torch.float64, device=device)  # below any magnitude: nothing seen
    with torch.no_grad(), evaluation_mode(model):
        for inputs, _ in data:
            # A process's part of a batch may be empty, which has no maximum of its own.
            outputs = outputs_of(model, inputs)
            found = outputs.abs().double().flatten(1)
            found = found.where(finite_examples(inputs, outputs)[:, None], torch.inf)
            largest = torch.cat([largest, found.flatten()]).max(0, keepdim=True).values
    largest = reduce(largest if is_finite(model) else largest + torch.inf)  # some reductions lose NaN
    if largest < 0:
        raise ValueError("no examples to evaluate on; the data is empty")
    return largest.item() if largest.isfinite() else float("nan")
