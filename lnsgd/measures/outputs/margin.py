"""Margins: by how much the output of an example's class exceeds the other outputs."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import WHOLE, Share, evaluation_mode
from lnsgd.measures.forward import Batches, OutputsFunction, outputs_of, tensors_in
from lnsgd.measures.labels import align_labels
from lnsgd.measures.nonfinite import finite_examples, is_finite


@dataclass(frozen=True)
class Margins:
    """Margins of the examples of a data set.

    Attributes:
        values: Margins of the labels in increasing order (NaN last), shape (n,), float64, on the CPU.
    """

    values: Tensor

    def fraction(self, margin: float) -> float:
        """Return the fraction of examples with a margin ≥ ``margin``; NaN if a margin is NaN."""
        if self.values.isnan().any():
            return float("nan")
        return (self.values >= margin).double().mean().item()

    def quantile(self, q: float) -> float:
        """Return the q-quantile, 0 ≤ q ≤ 1, linear between two examples; NaN if a margin is NaN."""
        return self.values.quantile(q).item()


def margins(model: nn.Module, data: Batches, *, outputs: OutputsFunction = outputs_of, share: Share = WHOLE) -> Margins:
    """Compute the margin o_y − max_{c≠y} o_c of every example, o its outputs and y its class, in float64.

    The model is in eval mode. For a network with a single output o the margin is y·o, y = ±1. It is positive if the
    example is classified correctly. Nagarajan and Kolter (2019), section 3, train until 99 % of the training set has a
    margin of at least 10.

    Args:
        model: Any module with outputs (B, C), (B, 1) or (B,), or of each position (``lnsgd.measures.labels``); it
            is not changed.
        data: Batches (inputs, class labels) on the model's device. Every label has a margin, except those of −100,
            which are none.
        outputs: How the network is called, see `lnsgd.measures.outputs_of`.
        share: This process's share of the data, if several processes take the measure together.

    Returns:
        Margins in the units of the outputs. The margin of an example with an input or output that is NaN or infinite is
        NaN; all are NaN if a weight of the model is.

    Raises:
        ValueError: labels that are not classes of the outputs; no labelled examples; outputs that are not one
            floating-point tensor.

    Example:
        >>> outputs = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.5]])
        >>> found = margins(nn.Identity(), [(outputs, torch.tensor([0, 0, 0]))])
        >>> found.values.tolist(), found.fraction(0.5), found.quantile(0.5)
        ([-2.0, 0.5, 2.0], 0.6666666666666666, 0.5)
    """
    parts = []
    finite = is_finite(model)
    with torch.no_grad(), evaluation_mode(model):
        for inputs, labels in data:
            if labels.is_floating_point():
                raise ValueError("margins need class labels (integers), but the labels are real numbers")
            aligned = align_labels(outputs_of(model, inputs, outputs).double(), labels)
            found = _margins(aligned.scores, aligned.labels)
            is_finite_example = finite & finite_examples(*tensors_in(inputs))
            found = found.where(is_finite_example.reshape(-1, *[1] * (found.ndim - 1)), torch.nan)
            parts.append(found[aligned.labelled])
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    own = torch.cat(parts).to(device) if parts else torch.zeros(0, dtype=torch.float64, device=device)
    every = _of_all(own, share)
    if not len(every):
        raise ValueError("no examples to take margins of; the data is empty, or no example has a label")
    return Margins(every.sort().values)


def _margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """Compute margins (B, …) of outputs (B, …, C) or (B, …, 1)."""
    if outputs.shape[-1] == 1:
        found = outputs[..., 0] * (2 * labels - 1)
    else:
        own = outputs.gather(-1, labels[..., None])
        found = (own - outputs.scatter(-1, labels[..., None], -torch.inf).amax(-1, keepdim=True))[..., 0]
    return found.where(outputs.isfinite().all(-1), torch.nan)


def _of_all(own: Tensor, share: Share) -> Tensor:
    """Collect the numbers of all processes in the order of the processes, shape (n,), on the CPU."""
    counts = own.new_zeros(share.world)
    counts[share.rank] = len(own)
    ends = share.reduce(counts).cumsum(0).long().tolist()
    numbers = own.new_zeros(ends[-1])
    numbers[ends[share.rank] - len(own) : ends[share.rank]] = own
    return share.reduce(numbers).cpu()
