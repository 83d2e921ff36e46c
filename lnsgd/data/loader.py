"""Batches of a data set that lives on the device."""

from collections.abc import Callable, Iterator

from torch import Tensor

from lnsgd.data.augmentation import Augmentation
from lnsgd.data.tensors import LabelledTensors
from lnsgd.measuring import Batch
from lnsgd.streams import Order, SampleOrder, effective_order


class DeviceLoader:
    """Iterable of `Batch`, gathered on the device; replaces a DataLoader under Lightning.

    An epoch is n examples of a `lnsgd.streams.SampleOrder`, which is drawn for all processes together; each process
    takes its share of every batch, and nothing is padded or repeated. The loader is its own
    ``sampler`` (Lightning calls ``sampler.set_epoch``) and has ``state_dict`` and
    ``load_state_dict``, so that a run resumes in the middle of an epoch with the next batch.

    Args:
        data: The data set, on the device of the batches.
        transform: Function from gathered inputs (B, …) to network inputs.
        batch_size: Examples in a batch over all processes; the last batch of an epoch may be smaller.
        order: ``shuffle`` (a permutation each epoch), ``replacement`` (n independent draws an
            epoch) or ``sequential``; a full batch without replacement is always ``sequential``.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.
        augmentation: Augmentation of gathered inputs before the transform; none by default.

    Raises:
        ValueError: no examples or a batch size below 1.
    """

    def __init__(
        self,
        data: LabelledTensors,
        transform: Callable[[Tensor], Tensor],
        batch_size: int,
        order: Order = "sequential",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        if len(data) == 0:
            raise ValueError("the data set is empty")
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}; it must be at least 1")
        self.data = data
        self.transform = transform
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.order = effective_order(order, batch_size, len(data))
        self._places = SampleOrder(len(data), self.order, seed)
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._yielded = 0
        self._resume_at = 0

    batch_sampler = None  # Lightning reads it of everything that has a ``sampler``

    @property
    def sampler(self) -> "DeviceLoader":
        """The loader itself; Lightning calls ``set_epoch`` of a sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch that is iterated next."""
        if epoch != self.epoch:
            self._resume_at = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were yielded."""
        return {"epoch": self.epoch, "batch": self._yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration continue after the batches that were yielded before."""
        self.epoch, self._resume_at = state["epoch"], state["batch"]

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch; nothing is drawn before the first batch."""
        self._yielded, self._resume_at = self._resume_at, 0
        n = len(self.data)
        places = self._places.take(self.epoch * n, n)
        rows = (places if self.data.rows is None else self.data.rows[places]).to(self.data.pool.device)
        places = places.to(self.data.labels.device)
        change = self._augmentation_of_epoch()
        for start in range(self._yielded * self.batch_size, n, self.batch_size):
            stop = min(start + self.batch_size, n)
            mine = slice(start + self.rank, stop, self.world_size)
            self._yielded += 1
            yield Batch(
                self.transform(change(self.data.pool.index_select(0, rows[mine]), mine)),
                self.data.labels.index_select(0, places[mine]),
                stop - start,
            )

    def _augmentation_of_epoch(self) -> Callable[[Tensor, slice], Tensor]:
        """Return a function that augments inputs, given which examples of the epoch they are."""
        augmentation, n = self.augmentation, len(self.data)
        if augmentation is None:
            return lambda inputs, _: inputs
        drawn = augmentation.take(self.epoch * n, n).to(self.data.pool.device)
        return lambda inputs, which: augmentation(inputs, drawn[which])
