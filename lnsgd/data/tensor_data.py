"""The base of the DataModules: data sets that live on the training device, and their loaders."""

import copy
from abc import abstractmethod
from typing import Any, Literal, Self

import torch
from torch import Tensor

from lnsgd import rng
from lnsgd.data.augmentation import Augmentation
from lnsgd.data.loader import DeviceLoader
from lnsgd.data.tensors import LabelledTensors
from lnsgd.lightning import LightningDataModule
from lnsgd.measuring import Batch
from lnsgd.streams import Order

Split = Literal["train", "val", "test"]


class TensorData(LightningDataModule):
    """Base of the DataModules: whole data sets on the training device.

    Subclasses define the splits in `make_splits`.

    Args:
        batch_size: Examples in a training batch over all processes; ``null`` for the whole training set.
        eval_batch_size: Examples in a batch of validation, testing and measuring.
        replacement: Draw training examples with replacement, as the papers' theory assumes; an epoch
            is then n draws. By default every epoch is a permutation.
        subset: Train on this many examples. By default on all.
        seed: Key of the order and of everything else that is drawn.

    Attributes:
        device: Device of the data sets if the data is used without a Trainer.

    Raises:
        ValueError: a batch size below 1.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        batch_size: int | None = 128,
        eval_batch_size: int = 2000,
        replacement: bool = False,
        subset: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name} = {size}; it must be at least 1")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.order: Order = "replacement" if replacement else "shuffle"
        self.subset = subset
        self.seed = seed
        self.splits: dict[Split, LabelledTensors] = {}

    @abstractmethod
    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Return training, validation and test set of this seed and subset; what is drawn is keyed by the seed."""

    @property
    @abstractmethod
    def num_classes(self) -> int | None:
        """Number of classes C of the labels; ``None`` for real targets."""

    def setup(self, stage: str | None = None) -> None:
        """Build the splits. The Trainer calls this on every process."""
        self.splits = self.splits or self.make_splits()

    def variant(self, seed: int, subset: int | None = None) -> Self:
        """Return the data of a run with another seed.

        Args:
            seed: Seed of the run.
            subset: Number of training examples of the run; ``None`` for the number of this data.
        """
        other = copy.copy(self)
        other.seed, other.splits = seed, {}
        other.subset = self.subset if subset is None else subset
        other.setup()
        return other

    def transform(self, inputs: Tensor) -> Tensor:
        """Compute network inputs from inputs as they are stored; by default the inputs themselves."""
        return inputs

    def augmentation(self) -> Augmentation | None:
        """Return the augmentation of training inputs, as they are stored; by default ``None``."""
        return None

    def train_dataloader(self) -> DeviceLoader:
        """Return the training batches, in keyed order, augmented."""
        data = self._on_device("train")
        return self._loader(data, self.batch_size or len(data), self.order, self.augmentation())

    def val_dataloader(self) -> DeviceLoader:
        """Return the validation batches."""
        return self._loader(self._on_device("val"), self.eval_batch_size)

    def test_dataloader(self) -> DeviceLoader:
        """Return the test batches."""
        return self._loader(self._on_device("test"), self.eval_batch_size)

    def measurement_dataloader(self, split: Split, examples: int | None = None) -> DeviceLoader:
        """Return batches to measure on: a fixed subset of a split, keyed by (seed, "subset"), without augmentation.

        Args:
            split: ``train``, ``val`` or ``test``.
            examples: Size of the subset; ``None``, or more than there are, for the whole split.

        Raises:
            ValueError: ``examples`` below 1.
        """
        data = self._on_device(split)
        if examples is not None and examples < 1:
            raise ValueError(f"examples = {examples}; give at least 1, or null for the whole split")
        if examples is not None and examples < len(data):
            data = data[torch.randperm(len(data), generator=rng.generator(self.seed, "subset", 2))[:examples]]
        return self._loader(data, self.eval_batch_size)

    def _on_device(self, split: Split) -> LabelledTensors:
        device = self.trainer.strategy.root_device if self.trainer else self.device
        self.splits[split] = self.splits[split].to(device)
        return self.splits[split]

    def _loader(
        self,
        data: LabelledTensors,
        batch_size: int,
        order: Order = "sequential",
        augmentation: Augmentation | None = None,
    ) -> DeviceLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DeviceLoader(data, self.transform, batch_size, order, self.seed, rank, world_size, augmentation)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device; batches of a `DeviceLoader` are on the device already."""
        return batch if isinstance(batch, Batch) else super().transfer_batch_to_device(batch, device, dataloader_idx)
