"""The largest magnitude of a network's outputs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.forward import Batches, OutputsFunction, outputs_of, tensors_in
from lnsgd.measures.nonfinite import finite_examples, is_finite


def largest_output(
    model: nn.Module,
    data: Batches,
    *,
    outputs: OutputsFunction = outputs_of,
    reduce: Callable[[Tensor], Tensor] = lambda largest: largest,
) -> float:
    """Compute max |N(x)_c| over the data's inputs x and the outputs c, with the model in eval mode.

    Theorem 3 of Cornacchia et al. bounds this number.

    Args:
        model: Any module; it is not changed.
        data: Batches (inputs, labels), on the model's device; labels are not used.
        outputs: How the network is called, see `lnsgd.measures.outputs_of`.
        reduce: Takes the maximum of a tensor over processes that each hold a part of the data.

    Returns:
        The maximum in the units of the outputs; NaN if a weight, an input or an output is not finite.

    Raises:
        ValueError: no examples, or outputs that are not one floating-point tensor.

    Example:
        >>> largest_output(nn.Identity(), [(torch.tensor([[1.0, -3.0], [2.0, 0.5]]), torch.tensor([0, 1]))])
        3.0
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    largest = torch.tensor([-1.0], dtype=torch.float64, device=device)  # below any magnitude
    with torch.no_grad(), evaluation_mode(model):
        for inputs, _ in data:
            # A process's part of a batch may be empty, which has no maximum of its own.
            values = outputs_of(model, inputs, outputs)
            found = values.abs().double().unsqueeze(-1).flatten(1)
            found = found.where(finite_examples(*tensors_in(inputs), values)[:, None], torch.inf)
            largest = torch.cat([largest, found.flatten()]).max(0, keepdim=True).values
    largest = reduce(largest if is_finite(model) else largest + torch.inf)  # some reductions lose NaN
    if largest < 0:
        raise ValueError("no examples to evaluate on; the data is empty")
    return largest.item() if largest.isfinite() else float("nan")
