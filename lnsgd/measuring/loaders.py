"""A fixed subset of the data set of any DataLoader, read without changing training."""

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from lnsgd import compat, rng

# Of subsets and of what data sets draw: the seed that lnsgd's own data has by default.
SEED = 0

# Largest size of the batches that are kept in memory after they were read once.
_KEPT_BYTES = 2**28


class LoaderBatches:
    """This process's share of a fixed subset of a DataLoader's data set, in batches of the loader's size.

    Examples are read by index, in sequence, through another loader with the batch size, ``collate_fn``, workers and
    ``pin_memory`` of the given one. The given loader, its sampler and its workers are not touched, and the global
    random state is restored after every batch. What a data set draws from the global generators of torch, NumPy and
    Python (for augmentation, for example) is keyed by the index of the example, so that every reading gives the same
    numbers. A data set must not draw from a generator of its own, whose state could not be restored. Up to 256 MiB of
    batches are kept in memory after they were read once.

    Process r of W reads the examples r, r + W, … of every batch. The examples are those that the loader's sampler
    takes, each once: the whole data set, the indices of a ``SubsetRandomSampler``, or those with positive weight.

    Args:
        loader: The DataLoader.
        split: Name of the split in messages.
        examples: Size of the subset, keyed; the whole split if it is ``None`` or larger than the split.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        ValueError: the loader is not a DataLoader; its data set or sampler does not allow picking examples by index;
            there are fewer examples than processes.
    """

    def __init__(
        self, loader: Any, split: str, examples: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.loader: DataLoader[Any] = loader
        if examples is not None and examples < 1:
            raise ValueError(f"examples = {examples}; give at least 1, or null for the whole split")
        indices, batch_size = _population(loader, split)
        if examples is not None and examples < len(indices):
            chosen = torch.randperm(len(indices), generator=rng.generator(SEED, "subset", 2))[:examples].tolist()
            indices = [indices[place] for place in chosen]
        if len(indices) < world_size:
            raise ValueError(
                f"{len(indices)} examples of the {split} data to measure on, fewer than the {world_size} processes; "
                "give more"
            )
        size = max(batch_size, world_size)  # a smaller batch would leave processes without an example
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        # The last batch may be too small for all processes.
        self._sizes = [len(batch) for batch in batches if len(batch) > rank]
        self._shares = [list(batch[rank::world_size]) for batch in batches if len(batch) > rank]
        self._kept: list[Any] | None = None

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        """Yield batches as ``collate_fn`` makes them, on the CPU, and the number of their examples on all processes."""
        if self._kept is not None:
            yield from zip(map(_copied, self._kept), self._sizes)
            return
        kept: list[Any] = []
        size = 0
        for batch, examples in zip(self._read(), self._sizes):
            size += _bytes(batch)
            if size <= _KEPT_BYTES:
                kept.append(_copied(batch))
            else:
                kept.clear()
            yield batch, examples
        if 0 < size <= _KEPT_BYTES:
            self._kept = kept

    def _read(self) -> Iterator[Any]:
        loader = self.loader
        workers = min(loader.num_workers, len(self._shares))
        reading: DataLoader[Any] = DataLoader(
            _Keyed(loader.dataset),
            batch_sampler=self._shares,
            num_workers=workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout if workers else 0,
            worker_init_fn=_WorkerStart(loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context if workers else None,
            generator=rng.generator(SEED, "order"),  # an iterator draws a seed for its workers
            prefetch_factor=loader.prefetch_factor if workers else None,
        )
        with rng.preserved():
            iterator = iter(reading)
        for _ in self._shares:
            with rng.preserved():
                batch = next(iterator)
            yield batch


class _Keyed(Dataset[Any]):
    """A data set whose examples draw from global generators that are seeded by the index of the example."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        rng.seed_globals(SEED, "augmentation", index)
        # As in training, where a data set that can return several examples at once is asked for those of a batch.
        several = getattr(self.dataset, "__getitems__", None)
        return several([index])[0] if several else self.dataset[index]


class _WorkerStart:
    """Begins a worker with the user's data set as that of `torch.utils.data.get_worker_info`, as in training.

    Args:
        worker_init_fn: That of the user's loader.
    """

    def __init__(self, worker_init_fn: Callable[[int], Any] | None) -> None:
        self._worker_init_fn = worker_init_fn

    def __call__(self, worker: int) -> None:
        compat.set_worker_dataset(get_worker_info().dataset.dataset)  # type: ignore[union-attr]
        if self._worker_init_fn is not None:
            self._worker_init_fn(worker)


def _population(loader: Any, split: str) -> tuple[Sequence[int], int]:
    """Return the indices of the examples that a loader takes, and the size of its batches."""
    if not isinstance(loader, DataLoader):
        raise unreadable(split, f"is a {type(loader).__name__}, not a torch DataLoader")
    if isinstance(loader.dataset, IterableDataset) or not isinstance(loader.dataset, Sized):
        raise unreadable(split, f"is a {type(loader.dataset).__name__}, whose examples cannot be picked by index")
    batches = loader.batch_sampler
    if not isinstance(batches, BatchSampler):
        kind = "batch_size=None" if batches is None else f"a {type(batches).__name__}"
        raise unreadable(split, f"is batched by {kind}, which does not say of which examples it is")
    indices = _indices(batches.sampler)
    if indices is None:
        raise unreadable(
            split, f"is sampled by a {type(batches.sampler).__name__}, which does not say of which examples"
        )
    return indices, batches.batch_size


def _indices(sampler: Any) -> Sequence[int] | None:
    """Return the indices of the examples that a sampler takes, each once; ``None`` if they are not known."""
    if (inner := compat.sampler_within(sampler)) is not None:
        return _indices(inner)
    if isinstance(sampler, DistributedSampler):
        return range(len(sampler.dataset))  # type: ignore[arg-type]
    if isinstance(sampler, SubsetRandomSampler):
        return [int(index) for index in sampler.indices]
    if isinstance(sampler, WeightedRandomSampler):
        return sampler.weights.nonzero().flatten().tolist()
    if isinstance(sampler, SequentialSampler | RandomSampler):
        return range(len(sampler.data_source))
    return None


def unreadable(split: str, why: str, remedy: str = "") -> ValueError:
    """Return the error for a split that cannot be measured on as it is.

    Args:
        split: Name of the split.
        why: What the data is, as the rest of a sentence that begins with "the … data".
        remedy: A further remedy, before that of giving another loader.
    """
    return ValueError(
        f"the {split} data {why}; {remedy}give data={{'{split}': DataLoader(…)}} over examples that can be picked by "
        "index, such as a list of them"
    )


def number_of_classes(dataset: Any) -> int | None:
    """Return ``len(dataset.classes)``, as torchvision's data sets have it, also of a ``Subset``; else ``None``."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    return len(classes) if isinstance(classes, Sized) else None


def _copied(batch: Any) -> Any:
    """Copy the tensors of a batch, so that they survive changes in place and hold no worker's shared memory."""
    return apply_to_collection(batch, Tensor, torch.clone)


def _bytes(batch: Any) -> int:
    sizes: list[int] = []
    apply_to_collection(batch, Tensor, lambda tensor: sizes.append(tensor.nbytes))
    return sum(sizes)
