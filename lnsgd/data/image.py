"""What all image data sets share: splits, scaling, corrupted labels."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from lnsgd import rng
from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors, corrupt_labels, draw_subset, keep_classes


class ImageData(TensorData):
    """Base of the image DataModules: uint8 images on the training device.

    Subclasses say how the raw data is obtained, ``prepare_data`` and ``load``, and may augment it, ``augmentation``.

    Args:
        batch_size: Examples of a training batch over all processes; ``null`` for the whole training set.
        eval_batch_size: The same for validation, testing and measuring.
        replacement: Draw training examples with replacement, as the papers' theory assumes; an epoch
            is then n draws. By default every epoch is a permutation.
        standardize: Subtract ``mean`` and divide by ``std`` of the official training set, of each channel. By default
            pixels are in [0, 1].
        center: In place of that, subtract from every pixel its mean over the official training set, `mean_image`.
        classes: Keep only these classes, relabelled 0, 1, … in this order; a list in place of a class makes one of
            several: ``[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]`` gives two labels to all images of ten classes.
        val_size: Hold out this many training examples for validation. With 0 the validation loop
            runs on the test set, as in the papers' curves; then select nothing by it.
        subset: Train on this many examples, drawn after the hold-out. By default on all.
        corrupted_fraction: Replace the labels of this fraction of the training examples, once.
        seed: Key of order, hold-out, subset and corruption.

    Raises:
        ValueError: both ``standardize`` and ``center``; on setup, an argument out of its range.
    """

    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    class_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        batch_size: int | None = 128,
        eval_batch_size: int = 2000,
        replacement: bool = False,
        standardize: bool = False,
        center: bool = False,
        classes: Sequence[int | Sequence[int]] | None = None,
        val_size: int = 0,
        subset: int | None = None,
        corrupted_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, replacement, subset, seed)
        if standardize and center:
            raise ValueError(
                "standardize = True and center = True: each shifts the pixels in its own way; set one of them to false"
            )
        self.standardize = standardize
        self.center = center
        self.classes = classes
        self.val_size = val_size
        self.corrupted_fraction = corrupted_fraction
        self._mean_images: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # variants, being copies, share it

    @abstractmethod
    def load(self, train: bool) -> LabelledTensors:
        """The official training or test set: images (n, channels, height, width) uint8, labels (n,)."""

    @property
    def num_classes(self) -> int:
        """Number of classes C of the labels."""
        return len(self.classes or self.class_names)

    @cached_property
    def _loaded(self) -> tuple[LabelledTensors, LabelledTensors]:
        return self.load(train=True), self.load(train=False)

    @cached_property
    def _official(self) -> tuple[LabelledTensors, LabelledTensors]:
        """Training and test set with the chosen classes."""
        train, test = self._loaded
        if self.classes is not None:
            train, test = keep_classes(train, self.classes), keep_classes(test, self.classes)
        return train, test

    def variant(self, seed: int, subset: int | None = None) -> Self:
        """The same data as a run with another seed sees it: other splits of the same images, loaded once.

        Args:
            seed: Its seed.
            subset: Its number of training examples; this one's where it is ``None``.
        """
        _ = self._official  # loaded before the copy is made, not in each copy
        return super().variant(seed, subset)

    @property
    def mean_image(self) -> Tensor:
        """Mean of the images of the official training set, (channels, height, width), float64 on the CPU.

        In units of pixels in [0, 1]. It is of the whole set as loaded (of the sample, where that is what is loaded),
        whatever classes and subset of it are trained on.
        """
        return self._mean_image(torch.device("cpu"), torch.float64)

    def _mean_image(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        # Kept, since to copy it to a GPU at every batch would make the host wait for it.
        if (device, dtype) not in self._mean_images:
            with torch.inference_mode(False):  # first needed in validation, it is used in training too
                exact = (torch.device("cpu"), torch.float64)
                if exact not in self._mean_images:
                    self._mean_images[exact] = _mean_of(self._loaded[0].inputs)
                self._mean_images[device, dtype] = self._mean_images[exact].to(device, dtype)
        return self._mean_images[device, dtype]

    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Holds out, draws the subset, corrupts labels."""
        official, test = self._official
        train, val = self._hold_out(official, test)
        if self.subset is not None:
            train = draw_subset(train, self.subset, self.seed)
        train = corrupt_labels(train, self.corrupted_fraction, self.num_classes, self.seed)
        return {"train": train, "val": val, "test": test}

    def _hold_out(self, train: LabelledTensors, test: LabelledTensors) -> tuple[LabelledTensors, LabelledTensors]:
        if self.val_size == 0:
            return train, test
        if not 0 < self.val_size < len(train):
            raise ValueError(f"val_size = {self.val_size}; give 0 to {len(train) - 1} of the training examples")
        order = torch.randperm(len(train), generator=rng.generator(self.seed, "subset", 1))
        return train[order[self.val_size :].sort().values], train[order[: self.val_size]]

    def transform(self, images: Tensor) -> Tensor:
        """Network inputs from uint8 images: [0, 1], standardized, or centered."""
        inputs = images.to(torch.get_default_dtype()).div_(255)
        if self.center:
            return inputs.sub_(self._mean_image(inputs.device, inputs.dtype))
        if not self.standardize:
            return inputs
        mean, std = (_per_channel(values, inputs.device, inputs.dtype) for values in (self.mean, self.std))
        return inputs.sub_(mean).div_(std)


def _mean_of(images: Tensor) -> Tensor:
    """Mean over uint8 images (n, …) of pixels in [0, 1], float64. Sums of integers: exact, in whatever order."""
    # In parts, since torch copies what it sums to the type of the sum: 1.2 GB for CIFAR-10.
    total = torch.stack([part.sum(0, dtype=torch.int64) for part in images.split(1000)]).sum(0)
    return total.double() / (255 * len(images))


# Kept, since to copy them to a GPU at every batch would make the host wait for it.
@cache
def _per_channel(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # first needed in validation, they are used in training too
        return torch.tensor(values, device=device, dtype=dtype).view(-1, 1, 1)
