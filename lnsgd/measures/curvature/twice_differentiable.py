"""Operations whose derivatives in PyTorch are missing, wrong or sparse, computed by operations that have them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lnsgd import compat

# What PyTorch says when a derivative is missing; the group is the operation.
_MISSING = (
    re.compile(r"derivative for (?:aten::)?'?_*(\w+?)(?:_backward)?'? is not implemented"),
    re.compile(r"double backwards? on (\w+) not supported"),
    re.compile(r"trying to differentiate twice (a function that was marked with @once_differentiable)"),
    re.compile(r"(torch\.compile with aot_autograd) does not currently support double backward"),
)


class TwiceDifferentiable(TorchFunctionMode):
    """Within this context, some functions of PyTorch are computed by others, which have the right second derivatives.

    The values are the same up to rounding. It was found with torch 2.15 that ``hardsigmoid``, ``embedding_bag``,
    ``multi_margin_loss`` and ``multilabel_margin_loss`` have no second derivative, that the second derivative of weight
    normalization is wrong, and that the gradients of embeddings may be sparse or scaled by frequency.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of PyTorch or its substitute."""
        return _SUBSTITUTES.get(func, func)(*args, **(kwargs or {}))


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    result = F.relu6(x + 3) / 6
    return x.copy_(result) if inplace else result


def _embedding(
    indices: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Look up rows; gradients are dense, and those of the function itself, not scaled."""
    return F.embedding(indices, weight, padding_idx, max_norm, norm_type)


def _embedding_bag(
    indices: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Reduce the rows of each bag by their sum, mean or maximum; an empty bag gives zeros."""
    if offsets is not None:
        ends = torch.cat([offsets[1:], offsets.new_tensor([] if include_last_offset else [len(indices)])])
        sizes = ends - (offsets[:-1] if include_last_offset else offsets)
    else:
        sizes = torch.full((len(indices),), indices.shape[1], device=indices.device)
    # All bags as rows of one matrix, shape (bags, longest), with places that do not count.
    longest = int(sizes.max()) if len(sizes) else 0
    counts = torch.arange(longest, device=indices.device) < sizes[:, None]
    places = torch.where(counts, torch.arange(longest, device=indices.device) + (sizes.cumsum(0) - sizes)[:, None], 0)
    chosen = indices.flatten()[places]
    if padding_idx is not None:
        counts = counts & (chosen != padding_idx % len(weight))
    rows = F.embedding(chosen, weight, None, max_norm, norm_type)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.flatten()[places].unsqueeze(-1)
    if mode == "max":
        largest = rows.masked_fill(~counts.unsqueeze(-1), -torch.inf).amax(1)
        return largest.where(counts.any(1, keepdim=True), 0.0)
    total = rows.where(counts.unsqueeze(-1), 0.0).sum(1)
    return total / counts.sum(1, keepdim=True).clamp(min=1) if mode == "mean" else total


def _multi_margin_loss(
    outputs: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Compute Σ_{j ≠ y} w_y max(0, margin − o_y + o_j)^p / C."""
    scores, classes = torch.atleast_2d(outputs), torch.atleast_1d(target).unsqueeze(1)
    margins = F.relu(margin - scores.gather(1, classes) + scores) ** p
    if weight is not None:
        margins = margins * weight[classes]
    losses = margins.scatter(1, classes, 0.0).sum(1) / scores.shape[1]
    return _reduced(losses.reshape(target.shape), size_average, reduce, reduction)


def _multilabel_margin_loss(
    outputs: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Compute Σ_j Σ_{i not in y} max(0, 1 − o_{y_j} + o_i) / C, y the labels before the first −1."""
    scores, labels = torch.atleast_2d(outputs), torch.atleast_2d(target)
    given = (labels >= 0).cumprod(1).bool()
    classes = labels.where(given, 0)
    others = torch.ones_like(scores, dtype=torch.long).scatter_reduce(1, classes, (~given).long(), "amin").bool()
    margins = F.relu(1 - scores.gather(1, classes).unsqueeze(2) + scores.unsqueeze(1))
    losses = margins.where(given.unsqueeze(2) & others.unsqueeze(1), 0.0).sum((1, 2)) / scores.shape[1]
    return _reduced(losses.reshape(outputs.shape[:-1]), size_average, reduce, reduction)


def _reduced(losses: Tensor, size_average: bool | None, reduce: bool | None, reduction: str) -> Tensor:
    if size_average is not None or reduce is not None:  # deprecated arguments, which take precedence
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def _weight_norm(direction: Tensor, length: Tensor, dim: int = 0) -> Tensor:
    return direction * (length / torch.norm_except_dim(direction, 2, dim))


_SUBSTITUTES: dict[Any, Callable[..., Tensor]] = {
    F.hardsigmoid: _hardsigmoid,
    F.embedding: _embedding,
    F.embedding_bag: _embedding_bag,
    F.multi_margin_loss: _multi_margin_loss,
    F.multilabel_margin_loss: _multilabel_margin_loss,
    compat.weight_norm_function(): _weight_norm,
}


@contextmanager
def missing_derivatives_named(model: nn.Module) -> Iterator[None]:
    """Turn PyTorch's errors about a missing derivative into one line that names the operation and its module.

    Args:
        model: The model that is differentiated.

    Raises:
        ValueError: a derivative is missing.
    """
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant=True" in str(error):
            raise ValueError(
                f"{type(model).__name__} calls torch.utils.checkpoint with use_reentrant=True, which allows no "
                "derivatives but those of backward(): give use_reentrant=False, or leave this measure out"
            ) from error
        operation = next((found[1] for pattern in _MISSING if (found := pattern.search(str(error)))), None)
        if operation is None:
            raise
        kind = operation.replace("_", "").lower()
        called = [(compat.plain_name(name), module) for name, module in model.named_modules() if kind in _kind(module)]
        places = [f"{name} ({type(module).__name__})" for name, module in called]
        place = places[0] if places else f"{type(model).__name__} or its loss"
        raise ValueError(
            f"{place} cannot be differentiated as often as this measure needs, because PyTorch has no such derivative "
            f"of {operation}: replace the operation, or leave this measure out"
        ) from error


def _kind(module: nn.Module) -> str:
    return type(module).__name__.lower()
