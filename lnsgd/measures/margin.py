"""By how much the right output of each example exceeds the others."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.problem import Share
from lnsgd.measures.evaluation import evaluation_mode, finite_examples, is_finite, outputs_of


@dataclass(frozen=True)
class Margins:
    """Margins of the examples of a data set.

    Attributes:
        values: In increasing order (NaN last), shape (n,), float64, on the CPU.
    """

    values: Tensor

    def fraction(self, margin: float) -> float:
        """Fraction of the examples with a margin ≥ ``margin``; NaN where one has none."""
        if self.values.isnan().any():
            return float("nan")
        return (self.values >= margin).double().mean().item()

    def quantile(self, q: float) -> float:
        """The q-quantile, 0 ≤ q ≤ 1, between two examples linear; NaN where one has no margin."""
        return self.values.quantile(q).item()


def margins(model: nn.Module, data: Iterable[tuple[Tensor, Tensor]], *, share: Share | None = None) -> Margins:
    """Margin o_y − max_{c≠y} o_c of every example, o its outputs and y its class, model in eval mode.

    Of a network with a single output o it is y·o, y = ±1. It is positive where the example is classified correctly.
    Nagarajan & Kolter (2019), § 3, train until 99 % of the training set has a margin of at least 10. An example with
    an input or output that is NaN or infinite has margin NaN, as do all of a model that has such a weight. Differences
    are taken in float64.

    Args:
        model: Any module with outputs (B, C) or (B, 1); it stays as it is.
        data: Batches (inputs, class labels) on the model's device.
        share: Which part of the data this is, where several processes hold it together; by default all of it.

    Raises:
        ValueError: labels that are no classes; no examples; outputs that are not one floating-point tensor.

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
                raise ValueError("margins need class labels, and these are real numbers")
            found = _margins(outputs_of(model, inputs).double(), labels)
            parts.append(found.where(finite & finite_examples(inputs), torch.nan))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    own = torch.cat(parts).to(device) if parts else torch.zeros(0, dtype=torch.float64, device=device)
    every = _of_all(own, share or Share())
    if not len(every):
        raise ValueError("no examples to take margins of; the data is empty")
    return Margins(every.sort().values)


def _margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """Margins (B,) of outputs (B, C) or (B, 1)."""
    if outputs.shape[1] == 1:
        found = outputs[:, 0] * (2 * labels - 1)
    else:
        own = outputs.gather(1, labels[:, None])
        found = (own - outputs.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True))[:, 0]
    return found.where(outputs.isfinite().all(1), torch.nan)


def _of_all(own: Tensor, share: Share) -> Tensor:
    """The numbers (n,) of all processes, one after the other, on the CPU."""
    counts = own.new_zeros(share.world)
    counts[share.rank] = len(own)
    ends = share.reduce(counts).cumsum(0).long().tolist()
    numbers = own.new_zeros(ends[-1])
    numbers[ends[share.rank] - len(own) : ends[share.rank]] = own
    return share.reduce(numbers).cpu()
