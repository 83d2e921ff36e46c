"""The batches of all replicas, some steps at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lnsgd.label_noise import LabelNoise
from lnsgd.replicas.engines.base import Batches
from lnsgd.replicas.learning_rate import LearningRate
from lnsgd.streams import NoiseSchedule, Order, SampleOrder, effective_order


@dataclass(frozen=True)
class TrainingSet:
    """Training set of one replica, which takes rows of inputs that all replicas share.

    Attributes:
        rows: Row of each example in the inputs, (n,), int64, on the CPU.
        labels: Class labels (n,), int64, or real targets (n, O).
    """

    rows: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ReplicaSettings:
    """Settings of one replica's training, complete with those that it shares with others.

    Attributes:
        seed: Key of the order of examples and of the noise.
        label_noise: The label noise.
        lr: Learning rate before any schedule.
        noise_steps: Number of steps with noise, see `lnsgd.streams.NoiseSchedule`.
    """

    seed: int
    label_noise: LabelNoise
    lr: float
    noise_steps: int | None = None


class BatchStream:
    """Draws the batches of all replicas; each replica gets the batches of the same run alone.

    Step t of a replica with n examples is in its epoch e = t // ⌈n/B⌉; the last batch of an epoch
    is smaller if B does not divide n.

    Args:
        data: Training set of each replica.
        settings: Settings of each replica.
        order: See `lnsgd.streams.SampleOrder`.
        batch_size: B; the whole training set if B is larger.
        num_classes: C; ``None`` for real targets.
        learning_rate: The schedule.
        per_epoch: Whether the schedule is stepped after each epoch of a replica, instead of after each step.
        device: Device on which the targets are made.

    Attributes:
        flips: Number of hard labels that were flipped and of hard labels that were drawn since `flip_rates` was called
            last; (R, 2), int64.
    """

    def __init__(
        self,
        data: Sequence[TrainingSet],
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
        self._streams = [
            _ReplicaStream(one, setting, order, self.batch_size, num_classes, learning_rate, per_epoch, device, flips)
            for one, setting, flips in zip(data, settings, self.flips)
        ]

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch of the largest training set."""
        return max(stream.steps_per_epoch for stream in self._streams)

    def draw(self, first_step: int, steps: int, running: Sequence[int] | None = None) -> Batches:
        """Draw the batches of consecutive steps.

        Args:
            first_step: Number of steps taken before.
            steps: K, the number of steps.
            running: Replicas that take the steps, at least one; by default all. Nothing is drawn for other replicas,
                which are given the batches of the first of these.
        """
        taking = range(len(self._streams)) if running is None else running
        drawn = {index: self._streams[index].draw(first_step, steps) for index in taking}
        stand_in = drawn[taking[0]]
        columns = zip(*(drawn.get(index, stand_in) for index in range(len(self._streams))))
        rows, sizes, targets, lrs = (torch.stack(column) for column in columns)
        return Batches(first_step, rows, sizes, targets, lrs)

    def flip_rates(self) -> Tensor:
        """Return the fraction of labels flipped since the last call, (R,), float64; NaN if none were drawn."""
        rates = self.flips[:, 0].double() / self.flips[:, 1]
        self.flips.zero_()
        return rates


class _ReplicaStream:
    """The batches of one replica; arguments as of `BatchStream`."""

    def __init__(
        self,
        data: TrainingSet,
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
        self.data = data
        self.settings = settings
        self.num_classes = num_classes
        self.learning_rate = learning_rate
        self.per_epoch = per_epoch
        self.device = device
        self.order = SampleOrder(n, effective_order(order, batch_size, n), settings.seed)
        shape = tuple(data.labels.shape[1:])
        noise, noise_steps = settings.label_noise, settings.noise_steps
        self.noise = NoiseSchedule(noise, noise_steps, settings.seed, shape, num_classes, device)
        self.steps_per_epoch = -(-n // batch_size)
        self.flips = flips

    def _examples_before(self, step: int) -> int:
        epoch, batch = divmod(step, self.steps_per_epoch)
        return epoch * self.n + batch * self.batch_size

    def draw(self, first_step: int, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw rows (K, B), sizes (K,), targets (K, B, …) and learning rates (K,) of K steps."""
        start, stop = self._examples_before(first_step), self._examples_before(first_step + steps)
        chosen = self.order.take(start, stop - start)
        labels = self.data.labels[chosen].to(self.device)
        targets = self._targets(labels, first_step, steps)
        if self.settings.label_noise.targets == "hard" and self.num_classes is not None:
            self.flips[0] += (targets != labels).sum().cpu()
            self.flips[1] += len(labels)
        return (
            self._divide(self.data.rows[chosen], first_step, steps),
            self._sizes(first_step, steps),
            self._divide(targets, first_step, steps),
            self._lrs(first_step, steps),
        )

    def _targets(self, labels: Tensor, first_step: int, steps: int) -> Tensor:
        """Return noisy targets for the labels of K steps."""
        parts, begin = [], self._examples_before(first_step)
        for stream, first, last in self.noise.stretches(first_step, first_step + steps):
            start, stop = self._examples_before(first), self._examples_before(last)
            parts.append(stream.targets(labels[start - begin : stop - begin], start, stop - start))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _sizes(self, first_step: int, steps: int) -> Tensor:
        batch = torch.arange(first_step, first_step + steps) % self.steps_per_epoch
        return (self.n - batch * self.batch_size).clamp(max=self.batch_size)

    def _divide(self, examples: Tensor, first_step: int, steps: int) -> Tensor:
        """Divide consecutive examples into batches, and pad the smaller batch at the end of an epoch."""
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
