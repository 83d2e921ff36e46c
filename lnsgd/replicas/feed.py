"""The batches of all replicas, some steps at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lnsgd.label_noise import LabelNoise
from lnsgd.replicas.engine import Chunk
from lnsgd.replicas.learning_rate import LearningRate
from lnsgd.streams import NoiseSchedule, Order, SampleOrder, effective_order


@dataclass(frozen=True)
class ReplicaData:
    """Training set of one replica.

    Attributes:
        rows: Which rows of the common pool of inputs its examples are, (n,), int64, on the CPU.
        labels: Their class labels (n,), int64, or real targets (n, O).
    """

    rows: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ReplicaSettings:
    """How one replica is trained.

    Attributes:
        seed: Key of its order and noise.
        label_noise: Its noise.
        lr: Its learning rate before any schedule.
        noise_steps: Number of its steps with noise, see `lnsgd.streams.NoiseSchedule`.
    """

    seed: int
    label_noise: LabelNoise
    lr: float
    noise_steps: int | None = None


class Feed:
    """Draws what the next steps of all replicas need; each one's stream is that of the same run alone.

    Step t of a replica with n examples is in its epoch e = t // ⌈n/B⌉; the last batch of an epoch
    is smaller where B does not divide n.

    Args:
        data: Training set of each replica.
        settings: How each is trained.
        order: See `lnsgd.streams.SampleOrder`.
        batch_size: B; the whole training set where it is larger.
        num_classes: C; ``None`` for real targets.
        learning_rate: The schedule.
        per_epoch: Whether the schedule is stepped after an epoch; after each step otherwise.
        device: Where the targets are made.

    Attributes:
        flips: Hard labels that were flipped, and how many were drawn, since the last `flip_rates`; (R, 2), int64.
    """

    def __init__(
        self,
        data: Sequence[ReplicaData],
        settings: Sequence[ReplicaSettings],
        order: Order,
        batch_size: int,
        num_classes: int | None,
        learning_rate: LearningRate,
        per_epoch: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch_size = min(batch_size, max(len(one.rows) for one in data))
        self.flips = torch.zeros(len(data), 2, dtype=torch.int64)
        self._sources = [
            _Source(one, setting, order, self.batch_size, num_classes, learning_rate, per_epoch, device, flips)
            for one, setting, flips in zip(data, settings, self.flips)
        ]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch of the largest training set."""
        return max(source.steps_per_epoch for source in self._sources)

    def chunk(self, first_step: int, steps: int, moving: Sequence[int] | None = None) -> Chunk:
        """The batches of the steps after ``first_step``.

        Args:
            first_step: Steps taken before.
            steps: K.
            moving: Replicas that take them, at least one; all by default. The others get the first of these's batches,
                and nothing is drawn for them.
        """
        taking = range(len(self._sources)) if moving is None else moving
        drawn = {index: self._sources[index].take(first_step, steps) for index in taking}
        stand_in = drawn[taking[0]]
        columns = zip(*(drawn.get(index, stand_in) for index in range(len(self._sources))))
        rows, sizes, targets, lrs = (torch.stack(column) for column in columns)
        return Chunk(first_step, rows, sizes, targets, lrs)

    def flip_rates(self) -> Tensor:
        """Fraction of the labels that were flipped since the last call, per replica (R,), float64; NaN before any."""
        rates = self.flips[:, 0].double() / self.flips[:, 1]
        self.flips.zero_()
        return rates


class _Source:
    """The batches of one replica."""

    def __init__(
        self,
        data: ReplicaData,
        settings: ReplicaSettings,
        order: Order,
        batch_size: int,
        num_classes: int | None,
        learning_rate: LearningRate,
        per_epoch: bool,
        device: torch.device | str,
        flips: Tensor,
    ) -> None:
        n = len(data.rows)
        self.n = n
        self.batch_size = batch_size
        self.rows = data.rows
        self.labels = data.labels
        self.settings = settings
        self.num_classes = num_classes
        self.learning_rate = learning_rate
        self.per_epoch = per_epoch
        self.device = device
        self.places = SampleOrder(n, effective_order(order, batch_size, n), settings.seed)
        shape = tuple(data.labels.shape[1:])
        noise, noise_steps = settings.label_noise, settings.noise_steps
        self.noise = NoiseSchedule(noise, noise_steps, settings.seed, shape, num_classes, device)
        self.steps_per_epoch = -(-n // batch_size)
        self.flips = flips

    def _position(self, step: int) -> int:
        """Examples used before a step."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        return epoch * self.n + batch * self.batch_size

    def take(self, first_step: int, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows (K, B), sizes (K,), targets (K, B, …) and learning rates (K,) of the next K steps."""
        start, stop = self._position(first_step), self._position(first_step + steps)
        places = self.places.take(start, stop - start)
        labels = self.labels[places].to(self.device)
        targets = self._targets(labels, first_step, steps)
        if self.settings.label_noise.targets == "hard" and self.num_classes is not None:
            self.flips[0] += (targets != labels).sum().cpu()
            self.flips[1] += len(labels)
        return (
            self._batches(self.rows[places], first_step, steps),
            self._sizes(first_step, steps),
            self._batches(targets, first_step, steps),
            self._lrs(first_step, steps),
        )

    def _targets(self, labels: Tensor, first_step: int, steps: int) -> Tensor:
        """Noisy targets of the labels of the next K steps."""
        parts, begin = [], self._position(first_step)
        for stream, first, last in self.noise.stretches(first_step, first_step + steps):
            start, stop = self._position(first), self._position(last)
            parts.append(stream.targets(labels[start - begin : stop - begin], start, stop - start))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _sizes(self, first_step: int, steps: int) -> Tensor:
        batch = torch.arange(first_step, first_step + steps) % self.steps_per_epoch
        return (self.n - batch * self.batch_size).clamp(max=self.batch_size)

    def _batches(self, examples: Tensor, first_step: int, steps: int) -> Tensor:
        """Consecutive examples as batches, padded where a batch is the last of an epoch and smaller."""
        shape = (steps, self.batch_size, *examples.shape[1:])
        if self.n % self.batch_size == 0:
            return examples.view(shape)
        padded = examples.new_zeros(shape)
        sizes = self._sizes(first_step, steps).to(examples.device)
        padded[torch.arange(self.batch_size, device=examples.device) < sizes[:, None]] = examples
        return padded

    def _lrs(self, first_step: int, steps: int) -> Tensor:
        if not self.per_epoch:
            return self.learning_rate(self.settings.lr, first_step, first_step + steps)
        epochs = torch.arange(first_step, first_step + steps) // self.steps_per_epoch
        first, last = int(epochs[0]), int(epochs[-1])
        return self.learning_rate(self.settings.lr, first, last + 1)[epochs - first]
