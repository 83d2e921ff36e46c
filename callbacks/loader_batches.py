"""A fixed part of anyone's DataLoader, read without moving training."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any

import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
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
)

from lnsgd import rng

# Of subsets and of what data sets draw: the seed that lnsgd's own data has by default.
SEED = 0

# Largest size of the batches that are kept in memory after they were read once.
_KEPT_BYTES = 2**28


class LoaderBatches:
    """This process's share of a fixed subset of a DataLoader's data set, in the loader's own batches.

    Examples are read by index, in sequence, through another loader with the batch size, ``collate_fn``, workers and
    ``pin_memory`` of the one given, which itself, its sampler and its workers are left alone. The global random state
    is as before after every batch. What a data set draws from the global generators of torch, NumPy and Python (such
    as augmentation) is keyed by the index of the example, so that all readings give the same; a generator of its own,
    which could not be put back, must not be what it draws from. Up to 256 MiB are kept in memory once they were read.

    Process r of W holds examples r, r + W, … of every batch. The examples are those that the loader's sampler takes,
    each once: the whole data set, the indices of a ``SubsetRandomSampler``, or those of positive weight.

    Args:
        loader: The DataLoader.
        split: What it is called in messages.
        examples: Size of the subset, keyed; all where it is ``None`` or larger than that.
        rank: This process.
        world_size: Number of processes.

    Raises:
        ValueError: no DataLoader; a data set or sampler of which no examples can be picked by index; fewer examples
            than processes.
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
        size = max(batch_size, world_size)  # a smaller batch would leave processes without any example
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        # The last batch may be too small for all processes.
        self._sizes = [len(batch) for batch in batches if len(batch) > rank]
        self._shares = [list(batch[rank::world_size]) for batch in batches if len(batch) > rank]
        self._kept: list[Any] | None = None

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        """Batches as ``collate_fn`` makes them, on the CPU, with the number of their examples on all processes."""
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
            worker_init_fn=loader.worker_init_fn,
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
    """The same data set; what an example draws from the global generators belongs to its index."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        rng.seed_globals(SEED, "augmentation", index)
        return self.dataset[index]


def _population(loader: Any, split: str) -> tuple[Sequence[int], int]:
    """Indices of the examples that a loader takes, and the size of its batches."""
    if not isinstance(loader, DataLoader):
        raise refusal(split, f"is a {type(loader).__name__}, no torch DataLoader")
    if isinstance(loader.dataset, IterableDataset) or not isinstance(loader.dataset, Sized):
        raise refusal(split, f"is a {type(loader.dataset).__name__}, whose examples cannot be picked by index")
    batches = loader.batch_sampler
    if not isinstance(batches, BatchSampler):
        kind = "batch_size=None" if batches is None else f"a {type(batches).__name__}"
        raise refusal(split, f"is batched by {kind}, which does not say of which examples it is")
    indices = _indices(batches.sampler)
    if indices is None:
        raise refusal(split, f"is sampled by a {type(batches.sampler).__name__}, which does not say of which examples")
    return indices, batches.batch_size


def _indices(sampler: Any) -> Sequence[int] | None:
    """Of the examples that a sampler takes, each once; ``None`` where it does not say."""
    if isinstance(sampler, DistributedSamplerWrapper):  # Lightning's, around the user's own
        return _indices(sampler.dataset._sampler)  # type: ignore[attr-defined]
    if isinstance(sampler, DistributedSampler):
        return range(len(sampler.dataset))  # type: ignore[arg-type]
    if isinstance(sampler, SubsetRandomSampler):
        return [int(index) for index in sampler.indices]
    if isinstance(sampler, WeightedRandomSampler):
        return sampler.weights.nonzero().flatten().tolist()
    if isinstance(sampler, SequentialSampler | RandomSampler):
        return range(len(sampler.data_source))
    return None


def refusal(split: str, why: str, remedy: str = "") -> ValueError:
    """The error that a split cannot be measured on as it is."""
    return ValueError(
        f"the {split} data {why}; {remedy}give the callback data={{'{split}': DataLoader(…)}} over examples that "
        "can be picked by index, such as a list of them"
    )


def number_of_classes(dataset: Any) -> int | None:
    """``len(dataset.classes)`` as torchvision's data sets have it, also of a ``Subset`` of one; ``None`` without."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    return len(classes) if isinstance(classes, Sized) else None


def _copied(batch: Any) -> Any:
    """What is kept must survive changes in place, and must not hold a worker's shared memory."""
    return apply_to_collection(batch, Tensor, torch.clone)


def _bytes(batch: Any) -> int:
    sizes: list[int] = []
    apply_to_collection(batch, Tensor, lambda tensor: sizes.append(tensor.nbytes))
    return sum(sizes)
