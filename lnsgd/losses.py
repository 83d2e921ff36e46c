"""Losses of every example: ``loss(outputs, targets) -> (B,)``.

Conventions of all losses:

* ``outputs`` are raw network outputs (logits), shape (B, C), or (B, 1) for one output unit.
* Hard targets are class indices (B,), int64. Soft targets are class probabilities (B, C).
  Real targets have the outputs' shape.
* One output unit stands for two classes with y = ±1: class 1 is y = +1, class 0 is y = −1.
* Nothing is averaged over the batch; each class says whether it sums or averages over outputs.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from lnsgd.label_noise import LabelNoise, TargetKind


class Loss(ABC):
    """Interface of a loss; any subclass can be named in a config by its class path.

    Attributes:
        accepts: Kinds of targets for which the loss is defined, see `lnsgd.label_noise.LabelNoise`.
    """

    accepts: ClassVar[frozenset[TargetKind]]

    @abstractmethod
    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of every example, shape (B,)."""


def check_compatible(loss: Loss, label_noise: LabelNoise) -> None:
    """Check that a loss is defined for the targets of a label noise.

    Args:
        loss: The loss, with the kinds of targets that it ``accepts``.
        label_noise: The label noise, with the kind of its ``targets``.

    Raises:
        ValueError: the loss is not defined for these targets.
    """
    if label_noise.targets not in loss.accepts:
        kinds = " or ".join(sorted(loss.accepts))
        raise ValueError(
            f"{type(loss).__name__} takes {kinds} targets, but {type(label_noise).__name__} gives "
            f"{label_noise.targets} ones; choose another loss or another label noise"
        )


def class_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    """Convert targets to one probability per output unit, in the outputs' shape (B, C) or (B, 1).

    Args:
        outputs: Network outputs, shape (B, C) or (B, 1); only their shape and type are used.
        targets: Class indices (B,), or class probabilities (B, C); (B, 2) for one output unit.

    Example:
        >>> import torch
        >>> class_probabilities(torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """
    if outputs.shape[-1] == 1:
        positive = targets[:, 1:] if targets.is_floating_point() else targets.unsqueeze(1)
        return positive.to(outputs.dtype)
    if targets.is_floating_point():
        return targets.to(outputs.dtype)
    return F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)


class CrossEntropy(Loss):
    """Softmax cross-entropy −Σ_c t_c log softmax(o)_c, for hard and soft targets and at least two outputs."""

    accepts = frozenset({"hard", "soft"})

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of every example, shape (B,)."""
        if outputs.shape[-1] == 1:
            raise ValueError(
                "CrossEntropy needs one output per class, but the network has a single output; use LogisticLoss"
            )
        return F.cross_entropy(outputs, targets, reduction="none")


class LogisticLoss(Loss):
    """One-vs-rest logistic loss Σ_c log(1 + exp(−y_c·o_c)), y_c = ±1 (Cornacchia et al., eq. 3).

    A sum over the C outputs, not a mean. Soft targets q give the expectation
    Σ_c [q_c log(1 + exp(−o_c)) + (1 − q_c) log(1 + exp(o_c))]. Stable for any |o|.
    """

    accepts = frozenset({"hard", "soft"})

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of every example, shape (B,)."""
        probabilities = class_probabilities(outputs, targets)
        return F.binary_cross_entropy_with_logits(outputs, probabilities, reduction="none").sum(-1)


class HingeLoss(Loss):
    """One-vs-rest hinge loss Σ_c max(0, β − y_c·o_c), y_c = ±1, a sum over the C outputs.

    It is defined for hard targets only, because a label between −1 and 1 does not have a margin. Use
    `lnsgd.label_noise.UniformNoise` instead of smoothing.

    Args:
        beta: Margin β, at least 0. β = 0 is the perceptron loss of Cornacchia et al.

    Raises:
        ValueError: negative β.
    """

    accepts = frozenset({"hard"})

    def __init__(self, beta: float = 1.0) -> None:
        if not beta >= 0:
            raise ValueError(f"HingeLoss: beta = {beta} is negative; the margin must be >= 0")
        self.beta = beta

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of every example, shape (B,)."""
        if targets.is_floating_point():
            raise ValueError(
                "HingeLoss takes hard targets only; use LogisticLoss, or UniformNoise instead of smoothing"
            )
        signs = 2 * class_probabilities(outputs, targets) - 1
        return F.relu(self.beta - signs * outputs).sum(-1)


class SquaredLoss(Loss):
    """Squared loss (o − t)², without a factor ½.

    Args:
        reduction: Reduction over the outputs of one example: ``mean`` is (1/C)Σ_c (o_c − t_c)² (Nagarajan and Kolter,
            appendix D), ``sum`` is Σ_c (o_c − t_c)² (Blanc et al.). They are equal for one output.

    Raises:
        ValueError: unknown reduction.
    """

    accepts = frozenset({"hard", "soft", "real"})

    def __init__(self, reduction: Literal["mean", "sum"] = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f"SquaredLoss: reduction = {reduction!r}; choose mean or sum")
        self.reduction = reduction

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of every example, shape (B,). Class labels are one-hot encoded, ±1 for one output."""
        squared = (outputs - self.values(outputs, targets)).square()
        return squared.mean(-1) if self.reduction == "mean" else squared.sum(-1)

    @staticmethod
    def values(outputs: Tensor, targets: Tensor) -> Tensor:
        """Convert targets to values in the outputs' shape.

        Args:
            outputs: Network outputs, shape (B, C) or (B, 1).
            targets: Values in the outputs' shape, which are returned as they are; or class labels, which become
                one-hot, or ±1 for one output.

        Raises:
            ValueError: targets of a shape that does not fit the outputs.
        """
        if targets.shape == outputs.shape and targets.is_floating_point():
            return targets
        two_classes = outputs.shape[-1] == 1 and targets.shape == (len(outputs), 2)
        if targets.shape != (len(outputs),) and not two_classes:
            raise ValueError(
                f"SquaredLoss: targets of shape {tuple(targets.shape)} for outputs of shape {tuple(outputs.shape)}; "
                "give class indices (B,) or values in the outputs' shape"
            )
        probabilities = class_probabilities(outputs, targets)
        return 2 * probabilities - 1 if outputs.shape[-1] == 1 else probabilities


def predicted_classes(outputs: Tensor) -> Tensor:
    """Compute predicted class indices, shape (B, …): the largest output, or the sign of a single output.

    Args:
        outputs: Network outputs (logits), shape (B, …, C) or (B, …, 1).

    Example:
        >>> import torch
        >>> predicted_classes(torch.tensor([[0.1, 0.7], [2.0, -1.0]])), predicted_classes(torch.tensor([[-0.3]]))
        (tensor([1, 0]), tensor([0]))
    """
    return (outputs[..., 0] > 0).long() if outputs.shape[-1] == 1 else outputs.argmax(-1)


def num_classes_of(outputs: Tensor) -> int:
    """Return the number of classes C that outputs distinguish: two for a single output.

    Args:
        outputs: Network outputs, shape (B, C) or (B, 1).
    """
    return max(2, outputs.shape[-1])
