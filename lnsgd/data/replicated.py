"""The data of many runs that are executed together."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from lnsgd.data.batch import Batch
from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors
from lnsgd.replicas.feed import ReplicaData
from lnsgd.replicas.replica import Replica


class Steps(NamedTuple):
    """What a replicated run gets as a training batch: how many SGD steps to take now.

    Attributes:
        first: Steps taken before.
        number: Steps to take.
    """

    first: int
    number: int


class SharedBatch(NamedTuple):
    """A batch to evaluate several replicas on.

    Attributes:
        inputs: Shape (B, …), floating.
        labels: Shape (B,), int64, or (B, O), floating.
        replicas: Indices of the replicas, (S,), int64.
    """

    inputs: Tensor
    labels: Tensor
    replicas: Tensor


class StepLoader:
    """Cuts a run into calls, each of as many steps as can be taken before something is due.

    It keeps no place of its own: an epoch starts at ``position()``.

    Args:
        position: Steps taken so far.
        epoch_end: From a step to the last one of its epoch.
        next_stop: From a step to the next one at which a call must end.
    """

    def __init__(
        self, position: Callable[[], int], epoch_end: Callable[[int], int], next_stop: Callable[[int], int]
    ) -> None:
        self.position = position
        self.epoch_end = epoch_end
        self.next_stop = next_stop

    def __iter__(self) -> Iterator[Steps]:
        """The calls of one epoch."""
        step = self.position()
        end = self.epoch_end(step)
        while step < end:
            stop = min(self.next_stop(step), end)
            yield Steps(step, stop - step)
            step = stop

    def state_dict(self) -> dict[str, int]:
        """Nothing: the number of steps is the Trainer's. Lightning asks resumable loaders for it."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing."""


class ReplicatedData(LightningDataModule):
    """The data of R replicas: to each, what its run alone would see.

    An epoch is one of the largest training set. A run that is limited by ``max_steps`` alone is one
    long epoch: where the training set is tiny, ending each of its epochs would cost more than its steps.

    Args:
        data: The DataModule of a single run.
        replicas: In what the replicas differ; here their seed and subset count.

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
        self._variants: dict[tuple[int, int | None], TensorData] = {}

    @property
    def num_classes(self) -> int | None:
        """Number of classes C of the labels; ``None`` for real targets."""
        return self.data.num_classes

    @property
    def batch_size(self) -> int:
        """Examples of a batch: the size of the largest training set, where the data has none."""
        return self.data.batch_size or max(len(self.variant(i).splits["train"]) for i in range(len(self.replicas)))

    @property
    def steps_per_epoch(self) -> int:
        """SGD steps of an epoch of the largest training set."""
        return max(-(-len(self.variant(i).splits["train"]) // self.batch_size) for i in range(len(self.replicas)))

    @property
    def endless(self) -> bool:
        """Whether the whole run is one epoch: it is limited by ``max_steps`` alone."""
        assert self.trainer is not None
        return self.trainer.max_epochs in (None, -1) and self.trainer.max_steps >= 0

    def prepare_data(self) -> None:
        """Downloads what is missing."""
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Builds each replica's splits; those with the same seed and subset share them."""
        device = self.trainer.strategy.root_device if self.trainer else "cpu"
        moved: dict[_Memory, tuple[Tensor, Tensor]] = {}

        def on_device(tensor: Tensor) -> Tensor:
            """Tensors that are shared stay shared; each is kept beside its copy, so that no other gets its address."""
            if _memory(tensor) not in moved:
                moved[_memory(tensor)] = tensor, tensor.to(device)
            return moved[_memory(tensor)][1]

        for replica in self.replicas:
            key = (replica.seed, replica.subset)
            if key not in self._variants:
                variant = self.data.variant(*key)
                for split, data in variant.splits.items():
                    variant.splits[split] = LabelledTensors(on_device(data.pool), on_device(data.labels), data.rows)
                variant.trainer = self.trainer
                self._variants[key] = variant

    def variant(self, replica: int) -> TensorData:
        """The data as a replica sees it."""
        chosen = self.replicas[replica]
        return self._variants[chosen.seed, chosen.subset]

    def training_pool(self) -> tuple[Tensor, list[ReplicaData]]:
        """Network inputs of all training sets together (N, …), and each replica's part of them."""
        pools: dict[_Memory, tuple[int, Tensor]] = {}
        size, parts = 0, []
        for i in range(len(self.replicas)):
            train = self.variant(i).splits["train"]
            if _memory(train.pool) not in pools:
                pools[_memory(train.pool)] = size, train.pool
                size += len(train.pool)
            rows = torch.arange(len(train)) if train.rows is None else train.rows
            parts.append(ReplicaData(rows + pools[_memory(train.pool)][0], train.labels.cpu()))
        return torch.cat([self.data.transform(pool) for _, pool in pools.values()]), parts

    def train_dataloader(self) -> StepLoader:
        """The calls of an epoch."""
        trainer = self.trainer
        assert trainer is not None
        stops = [*trainer.callbacks, trainer.lightning_module]  # type: ignore[attr-defined]
        limit = trainer.max_steps if trainer.max_steps >= 0 else None
        endless, per_epoch = self.endless, self.steps_per_epoch

        def epoch_end(step: int) -> int:
            end = limit if endless else (step // per_epoch + 1) * per_epoch
            assert end is not None
            return end if limit is None else min(end, limit)

        return StepLoader(lambda: trainer.global_step, epoch_end, lambda step: _next_stop(stops, step))

    def val_dataloader(self) -> "_EvaluationLoader":
        """Validation batches of all replicas."""
        return self._evaluation("val")

    def test_dataloader(self) -> "_EvaluationLoader":
        """Test batches of all replicas."""
        return self._evaluation("test")

    def _evaluation(self, split: Split) -> "_EvaluationLoader":
        sharing: dict[tuple[_Memory | None, ...], list[int]] = {}
        for i in range(len(self.replicas)):
            data = self.variant(i).splits[split]
            rows = None if data.rows is None else _memory(data.rows)
            sharing.setdefault((_memory(data.pool), _memory(data.labels), rows), []).append(i)
        return _EvaluationLoader([(self.variant(members[0]), members) for members in sharing.values()], split)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves batches as they are: they are on the device already."""
        return batch


class _EvaluationLoader:
    """The batches of a split, each for all replicas that share it."""

    def __init__(self, sharing: Sequence[tuple[TensorData, list[int]]], split: Split) -> None:
        self.loaders = [(variant.measurement_dataloader(split), torch.tensor(members)) for variant, members in sharing]

    def __len__(self) -> int:
        return sum(len(loader) for loader, _ in self.loaders)

    def __iter__(self) -> Iterator[SharedBatch]:
        for loader, members in self.loaders:
            for batch in loader:
                assert isinstance(batch, Batch)
                yield SharedBatch(batch.inputs, batch.labels, members.to(batch.labels.device))


_Memory = tuple[int, torch.Size, tuple[int, ...]]


def _memory(tensor: Tensor) -> _Memory:
    """The same for tensors that show the same memory in the same way."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _next_stop(parties: Sequence[Any], step: int) -> int:
    """The next step at which the module or a callback wants to look; each may have ``next_stop(step)``."""
    stops = [party.next_stop(step) for party in parties if hasattr(party, "next_stop")]
    for party in parties:
        if n := getattr(party, "_every_n_train_steps", 0):  # Lightning's ModelCheckpoint does not tell it otherwise
            stops.append((step // n + 1) * n)
    return min(stop for stop in stops if stop is not None)
