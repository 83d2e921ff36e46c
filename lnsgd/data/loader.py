"""Batches from a data set that lives on the device."""

from collections.abc import Callable, Iterator

from torch import Tensor

from lnsgd.data.augmentation import Augmentation
from lnsgd.data.batch import Batch
from lnsgd.data.tensors import LabelledTensors
from lnsgd.streams import Order, SampleOrder, effective_order


class DeviceLoader:
    """An iterable of `Batch`, gathered on the device; a drop-in for a DataLoader under Lightning.

    The order is that of `lnsgd.streams.SampleOrder`, an epoch being n examples of it, and drawn for
    all processes together; each takes its share of every batch, nothing is padded or repeated. The loader is its own
    ``sampler`` (Lightning calls ``sampler.set_epoch``) and has ``state_dict`` and
    ``load_state_dict``, so that a run resumes in the middle of an epoch with the very next batch.

    Args:
        data: The data set, on the device where the batches are wanted.
        transform: From gathered inputs (B, …) to network inputs.
        batch_size: Examples of a batch over all processes; the last of an epoch may be smaller.
        order: ``shuffle`` (a permutation each epoch), ``replacement`` (n independent draws an
            epoch) or ``sequential``, which a full batch without replacement always is.
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes.
        augmentation: What changes gathered inputs before the transform; nothing by default.

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

    batch_sampler = None  # Lightning reads it wherever there is a ``sampler``

    @property
    def sampler(self) -> "DeviceLoader":
        """Itself, where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the epoch that is iterated next."""
        if epoch != self.epoch:
            self._resume_at = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Where the iteration stands: the epoch and the number of its batches that were given out."""
        return {"epoch": self.epoch, "batch": self._yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration go on after the batches that were given out before."""
        self.epoch, self._resume_at = state["epoch"], state["batch"]

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch. Nothing is drawn before the first is asked for."""
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
        """From the inputs of some of the epoch's examples, and which these are, to the changed inputs."""
        augmentation, n = self.augmentation, len(self.data)
        if augmentation is None:
            return lambda inputs, _: inputs
        drawn = augmentation.take(self.epoch * n, n).to(self.data.pool.device)
        return lambda inputs, which: augmentation(inputs, drawn[which])
