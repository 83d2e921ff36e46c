"""What the steps of a run are made of: endless keyed sequences of samples, of their crops and of noise.

Example n of a run, counted from its first step on, has the same place in the data set, the same crop and
the same noise however the run is cut into batches, epochs, calls, processes or restarts. All sequences are
drawn a block at a time, since making a generator costs more than many draws from it.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lnsgd import rng
from lnsgd.label_noise import LabelNoise

Order = Literal["shuffle", "replacement", "sequential"]

# Examples in a block, more or less.
_BLOCK = 2**14


class _Stream(ABC):
    """An endless sequence of rows, of which the block used last is kept."""

    def __init__(self, block: int) -> None:
        self._size = block
        self._kept: tuple[int, Tensor] | None = None

    @abstractmethod
    def _draw(self, block: int) -> Tensor:
        """All rows of a block."""

    def _block(self, number: int) -> Tensor:
        if self._kept is None or self._kept[0] != number:
            self._kept = number, self._draw(number)
        return self._kept[1]

    def take(self, start: int, count: int) -> Tensor:
        """Rows ``start`` to ``start + count − 1``, at least one."""
        parts = []
        for number in range(start // self._size, (start + count - 1) // self._size + 1):
            first = number * self._size
            parts.append(self._block(number)[max(start - first, 0) : start + count - first])
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class SampleOrder(_Stream):
    """Which examples a run sees, as places 0 to n − 1, int64 on the CPU whatever the run's device.

    Keyed by (seed, "order", block). ``shuffle`` is one permutation after the other, ``replacement``
    independent uniform draws; ``sequential`` draws nothing.

    Args:
        n: Size of the training set.
        order: See above.
        seed: Seed of the order.
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
    """The label noise of a run, one row per example; keyed by (seed, "noise", block).

    Args:
        label_noise: The noise.
        seed: Seed of the noise.
        shape: Shape of one label: ``()`` for class labels.
        num_classes: C; ``None`` for real targets.
        device: Where it is drawn. CPU and CUDA streams of one key differ.
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
        """Labels under noise ``start`` to ``start + count − 1``, or of the share of these examples that is given."""
        return self.label_noise.apply(labels, self.take(start, count)[share], self.num_classes)


class CropStream(_Stream):
    """Where the training images of a run are cropped and whether they are flipped, one row per example.

    Keyed by (seed, "augmentation", block), int64 on the CPU whatever the run's device. Columns: first row and first
    column of the crop, both uniform on 0, 1, …, ``shifts`` − 1, and 1 for a flip or 0, each with probability ½; all
    independent.

    Args:
        shifts: Number of places of a crop along each axis.
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
    """Consecutive steps of one noise.

    Attributes:
        stream: The noise.
        first: The first step.
        stop: The one after the last.
    """

    stream: NoiseStream
    first: int
    stop: int


class NoiseSchedule:
    """Which noise acts on which step: ``label_noise`` on the first ``noise_steps``, then the same at level 0.

    Args:
        label_noise: The noise.
        noise_steps: Number of steps with noise; all of them where it is ``None``.
        seed: See `NoiseStream`, also for what follows.
        shape: Shape of one label.
        num_classes: C.
        device: Where it is drawn.

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
        """The noise of the step that is taken after ``step`` others."""
        return self._noisy if self._stop is None or step < self._stop else self._quiet

    def stretches(self, first: int, stop: int) -> list[Stretch]:
        """The noise of steps ``first`` to ``stop − 1``, at least one."""
        ends = [first, stop]
        if self._stop is not None and first < self._stop < stop:
            ends.insert(1, self._stop)
        return [Stretch(self.at(start), start, end) for start, end in pairwise(ends)]


def effective_order(order: Order, batch_size: int, examples: int) -> Order:
    """The order itself; for a full batch, where a permutation changes nothing, ``sequential``.

    Args:
        order: The order that was asked for.
        batch_size: Examples in a batch.
        examples: Examples in all.
    """
    return "sequential" if order == "shuffle" and batch_size >= examples else order
