"""Label noise: changes training targets, afresh at every step.

`LabelNoise` is the interface; any subclass of it can be named in a config by its class path.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

TargetKind = Literal["hard", "soft", "real"]


class LabelNoise(ABC):
    """Interface of a label noise: called with labels and a generator, it returns the targets of one step.

    How many numbers are drawn may depend on the *shape* of the labels, never on their values: then
    the noise of a batch is the same however many processes share the batch.

    Attributes:
        targets: What comes out: ``hard`` class indices (B,), ``soft`` class probabilities (B, C), or
            ``real`` values (B, C). A loss refuses the kinds it is not defined for.
    """

    targets: ClassVar[TargetKind]

    @abstractmethod
    def __call__(self, labels: Tensor, generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Targets of one step.

        Args:
            labels: Class indices, shape (B,), int64; or real targets of any floating shape.
            generator: Source of all randomness, on the labels' device.
            num_classes: C, the number of classes; ``None`` for real targets.
        """


def _check_probability(p: float, noise: str) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{noise}: p = {p} is outside [0, 1]; p is the probability that a label is replaced")


def _require_classes(labels: Tensor, num_classes: int | None, noise: str) -> int:
    if labels.is_floating_point():
        raise ValueError(f"{noise} is defined for class labels, not for real targets; use GaussianNoise")
    if num_classes is None:
        raise ValueError(f"{noise} needs num_classes, the number of classes to draw from")
    return num_classes


class NoNoise(LabelNoise):
    """The labels as they are. Draws nothing."""

    targets = "hard"

    def __call__(self, labels: Tensor, generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """The labels themselves; see `LabelNoise`."""
        return labels


class UniformNoise(LabelNoise):
    """With probability p a label is replaced by one drawn uniformly from all C classes.

    The drawn class may be the true one, so the realized flip rate is p(C−1)/C (Cornacchia et al.).

    Args:
        p: Probability of replacement, in [0, 1].

    Raises:
        ValueError: p outside [0, 1]; real targets.
    """

    targets = "hard"

    def __init__(self, p: float) -> None:
        _check_probability(p, "UniformNoise")
        self.p = p

    def __call__(self, labels: Tensor, generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Hard targets (B,), int64; see `LabelNoise`. Draws B uniforms, then B classes."""
        classes = _require_classes(labels, num_classes, "UniformNoise")
        replaced = torch.rand(labels.shape, generator=generator, device=labels.device) < self.p
        drawn = torch.randint(classes, labels.shape, generator=generator, device=labels.device)
        return torch.where(replaced, drawn, labels)


class LabelSmoothing(LabelNoise):
    """The expectation of `UniformNoise`: (1−p)·onehot + p/C. Draws nothing.

    Args:
        p: Mass spread uniformly over all C classes, in [0, 1].

    Raises:
        ValueError: p outside [0, 1]; real targets.
    """

    targets = "soft"

    def __init__(self, p: float) -> None:
        _check_probability(p, "LabelSmoothing")
        self.p = p

    def __call__(self, labels: Tensor, generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Soft targets (B, C) of the default floating type; see `LabelNoise`."""
        classes = _require_classes(labels, num_classes, "LabelSmoothing")
        return one_hot(labels, classes).to(torch.get_default_dtype()).mul_(1 - self.p).add_(self.p / classes)


class GaussianNoise(LabelNoise):
    """y + N(0, std²), independent for every entry (Blanc et al.); class labels are one-hot encoded first.

    Args:
        std: Standard deviation, in units of the targets, at least 0.

    Raises:
        ValueError: std negative or not finite.
    """

    targets = "real"

    def __init__(self, std: float) -> None:
        if not (std >= 0 and math.isfinite(std)):
            raise ValueError(f"GaussianNoise: std = {std}; it must be a finite number >= 0")
        self.std = std

    def __call__(self, labels: Tensor, generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Real targets, (B, C) for class labels, else the labels' shape; see `LabelNoise`."""
        if not labels.is_floating_point():
            classes = _require_classes(labels, num_classes, "GaussianNoise on class labels")
            labels = one_hot(labels, classes).to(torch.get_default_dtype())
        noise = torch.empty_like(labels).normal_(generator=generator)
        return labels + self.std * noise
