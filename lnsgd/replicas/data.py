"""The data of a replicated run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from lnsgd import compat, lightning
from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors
from lnsgd.measuring import Batch
from lnsgd.replicas.batch_stream import TrainingSet
from lnsgd.replicas.grid import Replica


class StepRange(NamedTuple):
    """The SGD steps of one training step of the Trainer, which a replicated run gets as a batch.

    Attributes:
        first: Number of steps taken before.
        number: Number of steps to take.
    """

    first: int
    number: int


class EvaluationBatch(NamedTuple):
    """A batch on which several replicas are evaluated.

    Attributes:
        inputs: Shape (B, …), floating.
        labels: Shape (B,), int64, or (B, O), floating.
        replicas: Indices of the replicas, (S,), int64.
    """

    inputs: Tensor
    labels: Tensor
    replicas: Tensor


class StepRangeLoader:
    """Divides an epoch into ranges of as many steps as can be taken before something is due.

    It keeps no position of its own: an epoch starts at ``position()``.

    Args:
        position: Returns the number of steps taken so far.
        epoch_end: Returns the last step of the epoch that a step belongs to.
        next_stop: Returns the next step after a step at which a range must end.
    """

    def __init__(
        self, position: Callable[[], int], epoch_end: Callable[[int], int], next_stop: Callable[[int], int]
    ) -> None:
        self.position = position
        self.epoch_end = epoch_end
        self.next_stop = next_stop

    def __iter__(self) -> Iterator[StepRange]:
        """Yield the ranges of one epoch."""
        step = self.position()
        end = self.epoch_end(step)
        while step < end:
            stop = min(self.next_stop(step), end)
            yield StepRange(step, stop - step)
            step = stop

    def state_dict(self) -> dict[str, int]:
        """Return nothing: the Trainer keeps the number of steps. Lightning asks resumable loaders for their state."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore nothing."""


class ReplicatedData(lightning.LightningDataModule):
    """DataModule of R replicas, each of which sees the data of the same run alone.

    An epoch is an epoch of the largest training set. A run that is limited by ``max_steps`` alone is one
    epoch of the Trainer: with a tiny training set, ending each epoch would cost more than its steps.

    Args:
        data: The DataModule of a single run.
        replicas: Settings of the replicas, of which the seed and the subset matter here.

    Raises:
        ValueError: a DataModule that is not a `TensorData`, or one that augments its training inputs.
    """

    def __init__(self, data: LightningDataModule, replicas: Sequence[Replica]) -> None:
        super().__init__()
        if not isinstance(data, TensorData):
            raise ValueError(f"replicas need a DataModule of lnsgd.data (a TensorData), not {type(data).__name__}")
        if data.augmentation() is not None:
            raise ValueError(
                f"{type(data).__name__} augments its training inputs, and replicas take them as they are; "
                "switch that off: --data.augment false"
            )
        self.data = data
        self.replicas = list(replicas)
        self._data: dict[tuple[int, int | None], TensorData] = {}

    @property
    def num_classes(self) -> int | None:
        """Number of classes C of the labels; ``None`` for real targets."""
        return self.data.num_classes

    @property
    def batch_size(self) -> int:
        """Number of examples in a batch; without a batch size, the size of the largest training set."""
        return self.data.batch_size or max(len(self.of_replica(i).splits["train"]) for i in range(len(self.replicas)))

    @property
    def steps_per_epoch(self) -> int:
        """Number of SGD steps in an epoch of the largest training set."""
        return max(-(-len(self.of_replica(i).splits["train"]) // self.batch_size) for i in range(len(self.replicas)))

    @property
    def endless(self) -> bool:
        """Whether the whole run is one epoch of the Trainer, because it is limited by ``max_steps`` alone."""
        assert self.trainer is not None
        return self.trainer.max_epochs in (None, -1) and self.trainer.max_steps >= 0

    def prepare_data(self) -> None:
        """Download missing files."""
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Build the splits of each replica; replicas of the same seed and subset share them."""
        device = self.trainer.strategy.root_device if self.trainer else self.data.device
        moved: dict[_Memory, tuple[Tensor, Tensor]] = {}

        def on_device(tensor: Tensor) -> Tensor:
            """Move a tensor once, so that shared tensors stay shared; it is kept, so that no other gets its address."""
            if _memory(tensor) not in moved:
                moved[_memory(tensor)] = tensor, tensor.to(device)
            return moved[_memory(tensor)][1]

        for replica in self.replicas:
            key = (replica.seed, replica.subset)
            if key not in self._data:
                own = self.data.variant(*key)
                for split, data in own.splits.items():
                    own.splits[split] = LabelledTensors(on_device(data.pool), on_device(data.labels), data.rows)
                own.trainer = self.trainer
                self._data[key] = own

    def of_replica(self, index: int) -> TensorData:
        """Return the data as a replica sees it."""
        replica = self.replicas[index]
        return self._data[replica.seed, replica.subset]

    def training_sets(self) -> tuple[Tensor, list[TrainingSet]]:
        """Return the network inputs of all training sets together (N, …), and the training set of each replica."""
        pools: dict[_Memory, tuple[int, Tensor]] = {}
        size, sets = 0, []
        for i in range(len(self.replicas)):
            train = self.of_replica(i).splits["train"]
            if _memory(train.pool) not in pools:
                pools[_memory(train.pool)] = size, train.pool
                size += len(train.pool)
            rows = torch.arange(len(train)) if train.rows is None else train.rows
            sets.append(TrainingSet(rows + pools[_memory(train.pool)][0], train.labels.cpu()))
        return torch.cat([self.data.transform(pool) for _, pool in pools.values()]), sets

    def train_dataloader(self) -> StepRangeLoader:
        """Return the step ranges of an epoch."""
        trainer = self.trainer
        assert trainer is not None
        parties = [*trainer.callbacks, trainer.lightning_module]  # type: ignore[attr-defined]
        limit = trainer.max_steps if trainer.max_steps >= 0 else None
        endless, per_epoch = self.endless, self.steps_per_epoch

        def epoch_end(step: int) -> int:
            end = limit if endless else (step // per_epoch + 1) * per_epoch
            assert end is not None
            return end if limit is None else min(end, limit)

        return StepRangeLoader(lambda: trainer.global_step, epoch_end, lambda step: _next_stop(parties, step))

    def val_dataloader(self) -> "_EvaluationLoader":
        """Return the validation batches of all replicas."""
        return self._evaluation("val")

    def test_dataloader(self) -> "_EvaluationLoader":
        """Return the test batches of all replicas."""
        return self._evaluation("test")

    def _evaluation(self, split: Split) -> "_EvaluationLoader":
        sharing: dict[tuple[_Memory | None, ...], list[int]] = {}
        for i in range(len(self.replicas)):
            data = self.of_replica(i).splits[split]
            rows = None if data.rows is None else _memory(data.rows)
            sharing.setdefault((_memory(data.pool), _memory(data.labels), rows), []).append(i)
        return _EvaluationLoader([(self.of_replica(indices[0]), indices) for indices in sharing.values()], split)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return the batch itself, which is on the device already."""
        return batch


class _EvaluationLoader:
    """Loader of the batches of a split, each for all replicas that share the split."""

    def __init__(self, sharing: Sequence[tuple[TensorData, list[int]]], split: Split) -> None:
        self.loaders = [(data.measurement_dataloader(split), torch.tensor(indices)) for data, indices in sharing]

    def __len__(self) -> int:
        return sum(len(loader) for loader, _ in self.loaders)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        for loader, replicas in self.loaders:
            for batch in loader:
                assert isinstance(batch, Batch)
                yield EvaluationBatch(batch.inputs, batch.labels, replicas.to(batch.labels.device))


_Memory = tuple[int, torch.Size, tuple[int, ...]]


def _memory(tensor: Tensor) -> _Memory:
    """Return a key that is equal for two tensors if they are the same view of the same memory."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _next_stop(parties: Sequence[Any], step: int) -> int:
    """Return the next step at which the module or a callback must be called; each may have ``next_stop(step)``."""
    stops = [party.next_stop(step) for party in parties if hasattr(party, "next_stop")]
    for party in parties:
        if n := compat.checkpoint_interval(party):
            stops.append((step // n + 1) * n)
    return min(stop for stop in stops if stop is not None)
