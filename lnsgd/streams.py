"""Endless keyed sequences that the steps of a run consume: samples, crops and label noise.

Example n of a run, counted from its first step, has the same place in the data set, the same crop and the same noise
however the run is divided into batches, epochs, calls, processes or restarts. All sequences are drawn a block at a
time, because making a generator costs more than many draws from it.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lnsgd import rng
from lnsgd.label_noise import LabelNoise

Order = Literal["shuffle", "replacement", "sequential"]

# Approximate number of examples in a block.
_BLOCK = 2**14


class _Stream(ABC):
    """An endless sequence of rows; the last block that was used is kept."""

    def __init__(self, block: int) -> None:
        self._size = block
        self._kept: tuple[int, Tensor] | None = None

    @abstractmethod
    def _draw(self, block: int) -> Tensor:
        """Draw all rows of a block."""

    def _block(self, number: int) -> Tensor:
        if self._kept is None or self._kept[0] != number:
            self._kept = number, self._draw(number)
        return self._kept[1]

    def take(self, start: int, count: int) -> Tensor:
        """Return rows ``start`` to ``start + count − 1``; ``count`` is at least 1."""
        parts = []
        for number in range(start // self._size, (start + count - 1) // self._size + 1):
            first = number * self._size
            parts.append(self._block(number)[max(start - first, 0) : start + count - first])
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class SampleOrder(_Stream):
    """The order in which a run sees examples: places 0 to n − 1, int64, on the CPU on any device of the run.

    The sequence is keyed by (seed, "order", block).

    Args:
        n: Size of the training set.
        order: ``shuffle`` for one permutation after the other, ``replacement`` for independent uniform draws, or
            ``sequential``, which draws nothing.
        seed: Seed of the order.

    Example:
        >>> SampleOrder(3, "sequential", seed=0).take(start=2, count=4)
        tensor([2, 0, 1, 2])
    """

    def __init__(self, n: int, order: Order, seed: int) -> None:
        epochs = max(1, _BLOCK // n)
        super().__init__(_BLOCK if order == "replacement" else epochs * n)
        self.n = n
        self.order = order
        self.seed = seed

    def _draw(self, block: int) -> Tensor:
        if self.order == "sequential":
            return torch.arange(self._size) % self.n
        generator = rng.generator(self.seed, "order", block)
        if self.order == "replacement":
            return torch.randint(self.n, (self._size,), generator=generator)
        return torch.cat([torch.randperm(self.n, generator=generator) for _ in range(self._size // self.n)])


class NoiseStream(_Stream):
    """The label noise of a run, one row per example, keyed by (seed, "noise", block).

    Args:
        label_noise: The noise.
        seed: Seed of the noise.
        shape: Shape of one label: ``()`` for class labels.
        num_classes: C; ``None`` for real targets.
        device: Device on which it is drawn. CPU and CUDA streams of one key differ.
    """

    def __init__(
        self,
        label_noise: LabelNoise,
        seed: int,
        shape: tuple[int, ...] = (),
        num_classes: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(_BLOCK)
        self.label_noise = label_noise
        self.seed = seed
        self.shape = shape
        self.num_classes = num_classes
        self.device = device

    def _draw(self, block: int) -> Tensor:
        generator = rng.generator(self.seed, "noise", block, device=self.device)
        return self.label_noise.draw((self._size, *self.shape), generator, self.num_classes)

    def targets(self, labels: Tensor, start: int, count: int, share: slice = slice(None)) -> Tensor:
        """Return the targets of examples under noise.

        Args:
            labels: Labels of the examples.
            start: Number of the first example.
            count: Number of examples, at least 1.
            share: The part of these examples to which the labels belong; by default all of them.
        """
        return self.label_noise.apply(labels, self.take(start, count)[share], self.num_classes)


class CropStream(_Stream):
    """Crops and flips of the training images of a run, one row per example, int64, on the CPU on any device of the run.

    The sequence is keyed by (seed, "augmentation", block). Its columns are the first row and the first column of the
    crop, both uniform on 0, 1, …, ``shifts`` − 1, and 1 for a flip or 0, each with probability ½; all are independent.

    Args:
        shifts: Number of positions of a crop along each axis.
        seed: Seed of the augmentation.
    """

    def __init__(self, shifts: int, seed: int) -> None:
        super().__init__(_BLOCK)
        self.shifts = shifts
        self.seed = seed

    def _draw(self, block: int) -> Tensor:
        generator = rng.generator(self.seed, "augmentation", block)
        corners = torch.randint(self.shifts, (self._size, 2), generator=generator)
        return torch.cat([corners, torch.randint(2, (self._size, 1), generator=generator)], dim=1)


class Stretch(NamedTuple):
    """Consecutive steps with the same noise.

    Attributes:
        stream: The noise.
        first: The first step.
        stop: The step after the last.
    """

    stream: NoiseStream
    first: int
    stop: int


class NoiseSchedule:
    """The noise of each step: ``label_noise`` on the first ``noise_steps`` steps, then the same noise at level 0.

    Args:
        label_noise: The noise.
        noise_steps: Number of steps with noise; ``None`` for all steps.
        seed: Seed of the noise, see `NoiseStream`.
        shape: Shape of one label.
        num_classes: C; ``None`` for real targets.
        device: Device on which the noise is drawn.

    Raises:
        ValueError: ``noise_steps`` with a noise that has no level.
    """

    def __init__(
        self,
        label_noise: LabelNoise,
        noise_steps: int | None,
        seed: int,
        shape: tuple[int, ...] = (),
        num_classes: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._stop = noise_steps
        self._noisy = NoiseStream(label_noise, seed, shape, num_classes, device)
        self._quiet = self._noisy
        if noise_steps is not None:
            self._quiet = NoiseStream(label_noise.at_level(0.0), seed, shape, num_classes, device)

    def at(self, step: int) -> NoiseStream:
        """Return the noise of the step that is taken after ``step`` others."""
        return self._noisy if self._stop is None or step < self._stop else self._quiet

    def stretches(self, first: int, stop: int) -> list[Stretch]:
        """Return the noise of steps ``first`` to ``stop − 1``, of which there is at least one."""
        ends = [first, stop]
        if self._stop is not None and first < self._stop < stop:
            ends.insert(1, self._stop)
        return [Stretch(self.at(start), start, end) for start, end in pairwise(ends)]


def effective_order(order: Order, batch_size: int, examples: int) -> Order:
    """Return the order; for a full batch, for which a permutation changes nothing, return ``sequential``.

    Args:
        order: The order in the config.
        batch_size: Number of examples in a batch.
        examples: Number of examples of the training set.
    """
    return "sequential" if order == "shuffle" and batch_size >= examples else order
