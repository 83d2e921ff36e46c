"""Label noise: random changes of the training targets, drawn afresh at every step.

`LabelNoise` is the interface; any subclass of it can be named in a config by its class path.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

TargetKind = Literal["hard", "soft", "real"]


class LabelNoise(ABC):
    """Interface of a label noise: ``draw`` noise without knowing the labels, ``apply`` it to them.

    A run draws the noise of many examples at once, and each step applies its part. So the noise of an example depends
    neither on the labels nor on the number of processes that share a batch.

    Attributes:
        targets: Kind of the targets that result: ``hard`` class indices (B,), ``soft`` class probabilities (B, C), or
            ``real`` values (B, C). A loss refuses the kinds for which it is not defined.
    """

    targets: ClassVar[TargetKind]

    @abstractmethod
    def draw(self, shape: Sequence[int], generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Draw noise for labels of a given shape, one row per example.

        Args:
            shape: Shape of the labels: (n,) for classes, (n, …) for real targets.
            generator: Source of all randomness, on the device of the noise.
            num_classes: C, the number of classes; ``None`` for real targets.

        Returns:
            A tensor of n rows; it has no columns if nothing is drawn.
        """

    @abstractmethod
    def apply(self, labels: Tensor, noise: Tensor, num_classes: int | None = None) -> Tensor:
        """Apply noise that was drawn to labels.

        Args:
            labels: Class indices, shape (n,), int64; or real targets of any floating shape.
            noise: Rows of a result of `draw`, one for each label.
            num_classes: C; ``None`` for real targets.
        """

    def at_level(self, level: float) -> "LabelNoise":
        """Return this noise at another level (p or std), in which replicas may differ.

        Args:
            level: The level.

        Raises:
            ValueError: the noise has no level.
        """
        raise ValueError(f"noise = {level}, but {type(self).__name__} has no level; choose another label noise")

    def __call__(self, labels: Tensor, generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Draw noise and apply it; see `draw` for the arguments."""
        return self.apply(labels, self.draw(labels.shape, generator, num_classes), num_classes)


def _check_probability(p: float, noise: str) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{noise}: p = {p} is outside [0, 1]; p is the probability that a label is replaced")


def _require_classes(num_classes: int | None, noise: str) -> int:
    if num_classes is None:
        raise ValueError(f"{noise} needs num_classes, the number of classes; for real targets use GaussianNoise")
    return num_classes


def _class_labels(labels: Tensor, num_classes: int | None, noise: str) -> int:
    if labels.is_floating_point():
        raise ValueError(f"{noise} is defined for class labels, not for real targets; use GaussianNoise")
    return _require_classes(num_classes, noise)


def _nothing(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.empty(shape[0], 0, device=generator.device)


class NoNoise(LabelNoise):
    """Labels without noise. Draws nothing."""

    targets = "hard"

    def draw(self, shape: Sequence[int], generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Return an empty tensor, shape (n, 0)."""
        return _nothing(shape, generator)

    def apply(self, labels: Tensor, noise: Tensor, num_classes: int | None = None) -> Tensor:
        """Return the labels themselves."""
        return labels


class UniformNoise(LabelNoise):
    """Noise that replaces a label with probability p by one drawn uniformly from all C classes (Cornacchia et al.).

    The drawn class may be the true one, so the realized flip rate is p(C−1)/C.

    Args:
        p: Probability of replacement, in [0, 1].

    Raises:
        ValueError: p outside [0, 1]; real targets.

    Example:
        >>> noise = torch.tensor([-1, 2])  # keep the first label, replace the second
        >>> UniformNoise(0.5).apply(torch.tensor([0, 0]), noise, num_classes=3)
        tensor([0, 2])
    """

    targets = "hard"

    def __init__(self, p: float) -> None:
        _check_probability(p, "UniformNoise")
        self.p = p

    def draw(self, shape: Sequence[int], generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Draw classes, shape (n,), int64, −1 if the label is kept: n uniform numbers, then n classes."""
        classes = _require_classes(num_classes, "UniformNoise")
        kept = torch.rand(shape, generator=generator, device=generator.device) >= self.p
        drawn = torch.randint(classes, shape, generator=generator, device=generator.device)
        return drawn.masked_fill_(kept, -1)

    def apply(self, labels: Tensor, noise: Tensor, num_classes: int | None = None) -> Tensor:
        """Return hard targets, shape (n,), int64."""
        _class_labels(labels, num_classes, "UniformNoise")
        return torch.where(noise < 0, labels, noise)

    def at_level(self, level: float) -> LabelNoise:
        """Return uniform noise with p = level."""
        return UniformNoise(level)


class LabelSmoothing(LabelNoise):
    """Label smoothing, the expectation of `UniformNoise`: (1−p)·onehot + p/C. Draws nothing.

    Args:
        p: Probability mass that is spread uniformly over all C classes, in [0, 1].

    Raises:
        ValueError: p outside [0, 1]; real targets.

    Example:
        >>> LabelSmoothing(0.5).apply(torch.tensor([1]), torch.empty(1, 0), num_classes=2)
        tensor([[0.2500, 0.7500]])
    """

    targets = "soft"

    def __init__(self, p: float) -> None:
        _check_probability(p, "LabelSmoothing")
        self.p = p

    def draw(self, shape: Sequence[int], generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Return an empty tensor, shape (n, 0)."""
        _require_classes(num_classes, "LabelSmoothing")
        return _nothing(shape, generator)

    def apply(self, labels: Tensor, noise: Tensor, num_classes: int | None = None) -> Tensor:
        """Return soft targets, shape (n, C), of the default floating-point type."""
        classes = _class_labels(labels, num_classes, "LabelSmoothing")
        return one_hot(labels, classes).to(torch.get_default_dtype()).mul_(1 - self.p).add_(self.p / classes)

    def at_level(self, level: float) -> LabelNoise:
        """Return smoothing with p = level."""
        return LabelSmoothing(level)


class GaussianNoise(LabelNoise):
    """Gaussian noise y + N(0, std²), independent for every entry (Blanc et al.); class labels become one-hot first.

    Args:
        std: Standard deviation in the units of the targets, at least 0.

    Raises:
        ValueError: std negative or not finite.
    """

    targets = "real"

    def __init__(self, std: float) -> None:
        if not (std >= 0 and math.isfinite(std)):
            raise ValueError(f"GaussianNoise: std = {std}; it must be a finite number >= 0")
        self.std = std

    def draw(self, shape: Sequence[int], generator: torch.Generator, num_classes: int | None = None) -> Tensor:
        """Draw N(0, std²) of the default floating-point type, shape (n, C) for class labels, else the labels' shape."""
        shape = shape if num_classes is None else (*shape, num_classes)
        return torch.empty(*shape, device=generator.device).normal_(0, self.std, generator=generator)

    def apply(self, labels: Tensor, noise: Tensor, num_classes: int | None = None) -> Tensor:
        """Return real targets, shape (n, C) for class labels, else the labels' shape."""
        if labels.is_floating_point():
            return labels + noise
        return noise + one_hot(labels, _require_classes(num_classes, "GaussianNoise on class labels"))

    def at_level(self, level: float) -> LabelNoise:
        """Return Gaussian noise with std = level."""
        return GaussianNoise(level)
