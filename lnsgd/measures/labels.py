"""Labels beside outputs: which axis is the classes, which positions have a label, and the loss of every example.

An example has one label, or one for each of its positions (tokens, pixels). The shapes of outputs and labels decide how
they belong together, and nothing is broadcast:

=====================  ==============================  ======================================================
labels                 outputs                         meaning
=====================  ==============================  ======================================================
(B,) or (B, 1)         (B, C)                          one of C classes; C = 1 is two classes, 0 and 1
(B,) or (B, 1)         (B,)                            two classes
(B, …)                 (B, …), the same shape          two classes at each position, or several binary labels
(B, …) or (B, 1, …)    (B, C, …)                       one of C classes at each position, as torch has it
(B, …)                 (B, …, C)                       one of C classes at each position, as transformers has it
=====================  ==============================  ======================================================

A position without a label has the ``ignore_index`` of the loss as its label, or −100 where there is no loss that says
another one.
"""

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lnsgd.measures.precision import at_least_single

UNLABELLED = -100
"""The label of a position that has none, unless a loss says another one: the default of torch."""

_MARKED = (
    "classes are 0, 1, …; −100, or the ignore_index of the loss, marks what has no label; numbers that are no classes "
    "must be floating point"
)

# Losses of torch that take the classes on the first axis after the examples, also if a network has them last.
_CLASSES_FIRST = (nn.CrossEntropyLoss, nn.NLLLoss)


# Examples whose losses are compared with their losses beside other examples.
_COMPARED = 4

# Random outputs for which the loss of a label is 0 if the label is left out, and labels that are tried in a batch.
_PROBES = 4
_MOST_CANDIDATES = 16


class AlignedLabels(NamedTuple):
    """Class labels and the outputs that belong to them, position by position.

    Attributes:
        scores: Outputs with the classes last, shape (B, …, C); C = 1 for two classes by one output.
        labels: Class of each position, shape (B, …), int64; 0 where there is none.
        labelled: Which positions have a label, shape (B, …), boolean.
    """

    scores: Tensor
    labels: Tensor
    labelled: Tensor


def align_labels(outputs: Tensor, labels: Tensor, ignore_index: int = UNLABELLED) -> AlignedLabels:
    """Find the outputs that belong to each class label, as the table of this module says.

    Args:
        outputs: Outputs of a network, shape (B, …).
        labels: Class labels, shape (B, …), integers.
        ignore_index: Label of the positions that have none.

    Raises:
        ValueError: the shapes do not agree, or agree in two ways; a label is not a class.

    Example:
        >>> found = align_labels(torch.zeros(2, 3, 5), torch.tensor([[0, 1, 4], [2, -100, -100]]))
        >>> found.scores.shape[-1], found.labelled.sum(1).tolist()
        (5, [3, 1])
    """
    labels = labels.reshape(_label_shape(outputs, labels)).long()
    axis = None if labels.shape == outputs.shape else _class_axis(outputs, labels)
    scores = outputs.unsqueeze(-1) if axis is None else outputs.movedim(axis, -1)
    labelled = labels != ignore_index
    check_classes(labels, labelled, max(2, scores.shape[-1]))
    return AlignedLabels(scores, labels.where(labelled, 0), labelled)


def _class_axes(outputs: Tensor, shape: tuple[int, ...]) -> list[int]:
    """Return the axes, first or last after the examples, without which outputs have a shape."""
    axes = sorted({1, outputs.ndim - 1}) if outputs.ndim > 1 else []
    return [axis for axis in axes if (*outputs.shape[:axis], *outputs.shape[axis + 1 :]) == shape]


def _label_shape(outputs: Tensor, labels: Tensor) -> tuple[int, ...]:
    """Return the shape of labels that fits outputs: their own, or that without axes of size 1."""
    own = tuple(labels.shape)
    slim = (*own[:1], *(size for size in own[1:] if size != 1))
    for shape in (own, slim):
        if shape == tuple(outputs.shape) or _class_axes(outputs, shape):
            return shape
    raise ValueError(
        f"labels of shape {own} do not belong to outputs of shape {tuple(outputs.shape)}; labels (B,) belong to "
        "outputs (B, C), (B, 1) or (B,), labels (B, …) to outputs (B, …), (B, C, …) or (B, …, C): give batch= or "
        "outputs="
    )


def _class_axis(outputs: Tensor, labels: Tensor) -> int:
    axes = _class_axes(outputs, tuple(labels.shape))
    if len(axes) > 1:
        raise ValueError(
            f"outputs of shape {tuple(outputs.shape)} may have their classes along axis {axes[0]} or {axes[1]} for "
            f"labels of shape {tuple(labels.shape)}; measure examples with another number of positions, cut by batch="
        )
    return axes[0]


def check_classes(labels: Tensor, labelled: Tensor, num_classes: int) -> None:
    """Check that labels are classes.

    Args:
        labels: Class labels, integers of any shape.
        labelled: Which of them count, boolean in the same shape.
        num_classes: Number of classes C.

    Raises:
        ValueError: a label is outside 0 to C − 1.
    """
    wrong = labelled & ((labels < 0) | (labels >= num_classes))
    if wrong.any():
        raise ValueError(
            f"label {labels[wrong][0].item()} is outside 0 to {num_classes - 1}, the {num_classes} classes of the "
            f"outputs; {_MARKED}"
        )


def example_classes(labels: Tensor, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the class of each example, for measures that sort examples by their class.

    Args:
        labels: Labels, shape (B,) or (B, 1), integers.
        num_classes: Number of classes C; if it is not given, labels may be any that are not negative.

    Returns:
        Classes, shape (B,), int64, 0 where an example has none; and which examples have a class, boolean, shape (B,).

    Raises:
        ValueError: labels that are not one class for each example; a label outside the classes.

    Example:
        >>> example_classes(torch.tensor([[2], [-100]]))
        (tensor([2, 0]), tensor([ True, False]))
    """
    if labels.is_floating_point() or labels.numel() != len(labels):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype}, are not classes; classes must be indices (B,)"
        )
    labels = labels.reshape(len(labels)).long()
    labelled = labels != UNLABELLED
    largest = int(labels.max().item()) + 1 if num_classes is None and len(labels) else num_classes
    check_classes(labels, labelled, max(2, largest or 0))
    return labels.where(labelled, 0), labelled


def next_token_labels(tokens: Tensor) -> Tensor:
    """Return the labels of a causal language model: at each position the token after it, and none at the last one.

    Args:
        tokens: Tokens (B, L), int64; −100 where a token is not to be predicted.

    Example:
        >>> next_token_labels(torch.tensor([[5, 6, 7]])).tolist()
        [[6, 7, -100]]
    """
    if tokens.ndim != 2:
        raise ValueError(f"tokens of shape {tuple(tokens.shape)}; labels of a causal language model are (B, L)")
    return nn.functional.pad(tokens[:, 1:], (0, 1), value=UNLABELLED)


def ignore_index_of(loss: Any) -> int:
    """Return the label of positions that a loss says it leaves out: ``ignore_index`` of the loss or of a part of it.

    Args:
        loss: Loss; a ``functools.partial`` says it by its keyword.
    """
    if isinstance(loss, partial):
        return loss.keywords.get("ignore_index", ignore_index_of(loss.func))
    parts = loss.modules() if isinstance(loss, nn.Module) else [loss]
    return next((index for part in parts if isinstance(index := getattr(part, "ignore_index", None), int)), UNLABELLED)


def unlabelled_class(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, labels: Tensor, losses: Tensor) -> int:
    """Return the label of positions that a loss leaves out, also where the loss does not say which one this is.

    A function such as ``lambda o, y: F.cross_entropy(o, y, ignore_index=0, reduction="none")`` has no attribute
    ``ignore_index``, and 0 is a class. Such a label shows by losses that are 0; it is left out if its loss is 0 for
    any outputs. A warning says so once.

    Args:
        loss: The loss.
        outputs: Outputs, shape (B, …).
        labels: Class labels, shape (B, …), integers.
        losses: Losses of the labels, in their shape or shape (B,); or of examples with several labels each, shape (B,),
            where the most frequent, the smallest and the largest label are tried.
    """
    said = ignore_index_of(loss)
    flat = labels.flatten()
    if losses.numel() == labels.numel():
        is_zero = losses.flatten() == 0
        candidates = flat[is_zero & (flat != said)]
        if len(candidates):
            candidates = candidates.unique()
            candidates = candidates[~torch.isin(candidates, flat[~is_zero])]
    else:
        candidates = flat[flat != said]
        if len(candidates):
            candidates = torch.stack([candidates.mode().values, *candidates.aminmax()]).unique()
    for candidate in candidates[:_MOST_CANDIDATES].tolist():
        if _is_left_out(loss, outputs, labels, candidate):
            _say_once(
                f"the loss is 0 for the label {candidate} whatever the outputs are; examples and positions with this "
                "label count as not labelled"
            )
            return candidate
    return said


def _is_left_out(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, labels: Tensor, label: int) -> bool:
    """Return whether the loss of a label is 0 for random outputs and for their negatives."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn((_PROBES, *outputs.shape[1:]), generator=generator).to(outputs)
    with torch.no_grad():
        for scores in (random, -random, 10 * random, -10 * random):
            found = loss(scores, torch.full((_PROBES, *labels.shape[1:]), label, device=labels.device))
            if not ((found == 0) | found.isnan()).all():  # a mean over no labels is NaN
                return False
    return True


@cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)


class ExampleLosses(NamedTuple):
    """Losses of examples; their mean over data is Σ ``sums`` / Σ ``weights``.

    Attributes:
        sums: Sum of the losses of the positions of each example, shape (B,).
        weights: Number of the losses in this sum, shape (B,), float64; 0 for an example without a label.
        unlabelled: Label of the positions that have none, as far as the losses of single labels show it, see
            `unlabelled_class`.
        is_by_label: Whether the loss gave a number for each label.
    """

    sums: Tensor
    weights: Tensor
    unlabelled: int = UNLABELLED
    is_by_label: bool = True


def example_losses(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, labels: Tensor) -> ExampleLosses:
    """Compute the loss of every example, or of each of its positions.

    A loss gives one number for each example, shape (B,), or one for each label, in the labels' shape, as losses of
    torch with ``reduction="none"`` do. Losses of examples have the weight 1, so that their mean is over examples;
    losses of positions have the weight 1 where there is a label, so that their mean is over the labelled positions of
    all examples, as torch averages them. The loss does not see examples without any label, which have the weight 0.
    ``CrossEntropyLoss`` and ``NLLLoss`` get outputs (B, …, C) as (B, C, …).

    Args:
        loss: Loss with the shapes above.
        outputs: Outputs, shape (B, …).
        labels: Labels, shape (B, …); real targets are all labelled.

    Raises:
        ValueError: a loss of another shape; a label that is not a class of the outputs, or that has another shape.

    Example:
        >>> loss = nn.CrossEntropyLoss(reduction="none")
        >>> found = example_losses(loss, torch.zeros(2, 4, 3), torch.tensor([[0, 1, 1], [2, -100, -100]]))
        >>> found.weights.tolist(), round((found.sums.sum() / found.weights.sum()).item(), 4)
        ([3.0, 1.0], 1.3863)
    """
    if not labels.is_floating_point():
        aligned = align_labels(outputs, labels, ignore_index_of(loss))
        if isinstance(loss, _CLASSES_FIRST) and outputs.ndim > 2:
            outputs = aligned.scores.movedim(-1, 1)
    return labelled_losses(loss, outputs, labels)


def labelled_losses(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, labels: Tensor) -> ExampleLosses:
    """Compute losses as `example_losses` does, without a check that labels are classes of the outputs.

    The loss gets copies, so that it may write into outputs and labels.

    Args:
        loss: Loss of examples, shape (B,), or of labels, in their shape.
        outputs: Outputs, shape (B, …), laid out as the loss takes them.
        labels: Labels, shape (B, …).

    Raises:
        ValueError: a loss of another shape.
    """

    def copying(outputs: Tensor, labels: Tensor) -> Tensor:
        return loss(outputs.clone(), labels.clone())

    if labels.is_floating_point():
        return _weighted(_checked(copying(outputs, labels), labels), torch.ones_like(labels, dtype=torch.bool))
    ignored = ignore_index_of(loss)
    labelled = labels != ignored
    chosen = _any_of_example(labelled)
    sums = outputs.new_zeros(len(outputs))
    weights = torch.zeros(len(outputs), dtype=torch.float64, device=labels.device)
    if not bool(chosen.any()):
        return ExampleLosses(sums, weights, ignored)
    is_whole = bool(chosen.all())
    of, some = (outputs, labels) if is_whole else (outputs[chosen], labels[chosen])
    losses = _checked(copying(of, some), some)
    hidden = unlabelled_class(loss, of, some, losses) if losses.numel() == some.numel() else ignored
    counted = some != ignored if hidden == ignored else (some != ignored) & (some != hidden)
    found = _weighted(losses, counted, hidden)
    if is_whole:
        return found
    sums = sums.to(found.sums.dtype).index_put((chosen.nonzero()[:, 0],), found.sums)
    weights[chosen] = found.weights
    return ExampleLosses(sums, weights, hidden)


def _any_of_example(labelled: Tensor) -> Tensor:
    return labelled.flatten() if labelled.numel() == len(labelled) else labelled.flatten(1).any(1)


def _weighted(losses: Tensor, labelled: Tensor, unlabelled: int = UNLABELLED) -> ExampleLosses:
    if losses.ndim == 1:
        counted = _any_of_example(labelled)
        is_by_label = labelled.numel() == len(labelled)
        return ExampleLosses(losses.where(counted, 0), counted.double(), unlabelled, is_by_label)
    counted = labelled.flatten(1)
    return ExampleLosses(losses.flatten(1).where(counted, 0).sum(1), counted.sum(1).double(), unlabelled)


def _checked(losses: Tensor, labels: Tensor) -> Tensor:
    """Return losses of examples or of labels, in at least single precision."""
    if losses.shape != labels.shape and losses.shape != labels.shape[:1]:
        raise ValueError(
            f"the loss gives shape {tuple(losses.shape)} for {len(labels)} examples with labels {tuple(labels.shape)}; "
            "it must be per example or per label: give a loss= such as torch.nn.CrossEntropyLoss(reduction='none')"
        )
    return at_least_single(losses)


def check_examples_apart(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, labels: Tensor) -> None:
    """Check that the loss of an example does not depend on the other examples, as it does if shapes are broadcast.

    Args:
        loss: See `example_losses`.
        outputs: Outputs of a few examples, shape (B, …).
        labels: Their labels.

    Raises:
        ValueError: an example has another loss by itself.
    """
    if len(outputs) < 2:
        return
    outputs, labels = outputs[:_COMPARED].detach(), labels[:_COMPARED]
    together = example_losses(loss, outputs, labels).sums
    parts = zip(outputs.split(1), labels.split(1))
    alone = torch.cat([example_losses(loss, output, label).sums for output, label in parts])
    # Half precision has about three digits.
    differ = ~torch.isclose(together, alone.to(together.dtype), rtol=1e-2, atol=1e-3, equal_nan=True)
    differ &= together.isfinite()
    if differ.any():
        raise ValueError(
            f"the loss of an example is {alone[differ][0]:.4g} alone and {together[differ][0]:.4g} beside others, for "
            f"outputs of shape {tuple(outputs.shape)} and labels {tuple(labels.shape)}; give a loss= that does not "
            "broadcast one to the shape of the other and does not compare examples"
        )
