"""What all image data sets share: splits, scaling, subsets, corrupted labels, loaders."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from lnsgd import rng
from lnsgd.data.batch import Batch
from lnsgd.data.loader import DeviceLoader, Order
from lnsgd.data.tensors import LabelledTensors, corrupt_labels, draw_subset, keep_classes

Split = Literal["train", "val", "test"]


class ImageData(LightningDataModule):
    """Base of the image DataModules: uint8 images on the training device.

    Subclasses say how the raw data is obtained: `prepare_data` and `load`.

    Args:
        batch_size: Examples of a training batch over all processes.
        eval_batch_size: The same for validation, testing and measuring.
        replacement: Draw training examples with replacement, as the papers' theory assumes; an epoch
            is then n draws. By default every epoch is a permutation.
        standardize: Subtract `mean` and divide by `std` of the official training set. By default
            pixels are in [0, 1].
        classes: Keep only these classes, relabelled 0, 1, … in this order.
        val_size: Hold out this many training examples for validation. With 0 the validation loop
            runs on the test set, as in the papers' curves; then select nothing by it.
        subset: Train on this many examples, drawn after the hold-out. By default on all.
        corrupted_fraction: Replace the labels of this fraction of the training examples, once.
        seed: Key of order, hold-out, subset and corruption.

    Raises:
        ValueError: on setup, an argument out of its range.
    """

    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    class_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 2000,
        replacement: bool = False,
        standardize: bool = False,
        classes: Sequence[int] | None = None,
        val_size: int = 0,
        subset: int | None = None,
        corrupted_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ValueError(f"{name} = {size}; it must be at least 1")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.order: Order = "replacement" if replacement else "shuffle"
        self.standardize = standardize
        self.classes = classes
        self.val_size = val_size
        self.subset = subset
        self.corrupted_fraction = corrupted_fraction
        self.seed = seed
        self.splits: dict[Split, LabelledTensors] = {}

    @abstractmethod
    def load(self, train: bool) -> LabelledTensors:
        """The official training or test set: images (n, channels, height, width) uint8, labels (n,)."""

    @property
    def num_classes(self) -> int:
        """Number of classes C of the labels."""
        return len(self.classes or self.class_names)

    def setup(self, stage: str | None = None) -> None:
        """Builds the splits. Called by the Trainer on every process."""
        if self.splits:
            return
        train, test = self.load(train=True), self.load(train=False)
        if self.classes is not None:
            train, test = keep_classes(train, self.classes), keep_classes(test, self.classes)
        train, val = self._hold_out(train, test)
        if self.subset is not None:
            train = draw_subset(train, self.subset, self.seed)
        train = corrupt_labels(train, self.corrupted_fraction, self.num_classes, self.seed)
        self.splits = {"train": train, "val": val, "test": test}

    def _hold_out(self, train: LabelledTensors, test: LabelledTensors) -> tuple[LabelledTensors, LabelledTensors]:
        if self.val_size == 0:
            return train, test
        if not 0 < self.val_size < len(train):
            raise ValueError(f"val_size = {self.val_size}; give 0 to {len(train) - 1} of the training examples")
        order = torch.randperm(len(train), generator=rng.generator(self.seed, "subset", 1))
        return train[order[self.val_size :].sort().values], train[order[: self.val_size]]

    def transform(self, images: Tensor) -> Tensor:
        """Network inputs from uint8 images: [0, 1], or standardized."""
        inputs = images.to(torch.get_default_dtype()).div_(255)
        if not self.standardize:
            return inputs
        shape = (-1, 1, 1)
        mean, std = inputs.new_tensor(self.mean).view(shape), inputs.new_tensor(self.std).view(shape)
        return inputs.sub_(mean).div_(std)

    def train_dataloader(self) -> DeviceLoader:
        """Training batches, in keyed order."""
        return self._loader(self._on_device("train"), self.batch_size, self.order)

    def val_dataloader(self) -> DeviceLoader:
        """Validation batches."""
        return self._loader(self._on_device("val"), self.eval_batch_size)

    def test_dataloader(self) -> DeviceLoader:
        """Test batches."""
        return self._loader(self._on_device("test"), self.eval_batch_size)

    def measurement_dataloader(self, split: Split, examples: int | None = None) -> DeviceLoader:
        """Batches to measure on: a fixed subset of a split, keyed by (seed, "subset"), without augmentation.

        Args:
            split: ``train``, ``val`` or ``test``.
            examples: Size of the subset; the whole split where it is ``None`` or larger than that.

        Raises:
            ValueError: ``examples`` below 1.
        """
        data = self._on_device(split)
        if examples is not None and examples < 1:
            raise ValueError(f"examples = {examples}; give at least 1, or null for the whole split")
        if examples is not None and examples < len(data):
            order = torch.randperm(len(data), generator=rng.generator(self.seed, "subset", 2))
            data = data[order[:examples].to(data.labels.device)]
        return self._loader(data, self.eval_batch_size)

    def _on_device(self, split: Split) -> LabelledTensors:
        device = self.trainer.strategy.root_device if self.trainer else "cpu"
        self.splits[split] = self.splits[split].to(device)
        return self.splits[split]

    def _loader(self, data: LabelledTensors, batch_size: int, order: Order = "sequential") -> DeviceLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DeviceLoader(data, self.transform, batch_size, order, self.seed, rank, world_size)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves batches of a `DeviceLoader` as they are: they are on the device already."""
        return batch if isinstance(batch, Batch) else super().transfer_batch_to_device(batch, device, dataloader_idx)
