"""The base of the image data sets: splits, scaling, corrupted labels."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from lnsgd import rng
from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors, corrupt_labels, draw_subset, keep_classes


class ImageData(TensorData):
    """Base of the image DataModules: uint8 images on the training device.

    Subclasses define how the raw data is obtained (``prepare_data`` and ``load``), and may augment it
    (``augmentation``).

    Args:
        batch_size: Examples in a training batch over all processes; ``null`` for the whole training set.
        eval_batch_size: Examples in a batch of validation, testing and measuring.
        replacement: Draw training examples with replacement, as the papers' theory assumes; an epoch
            is then n draws. By default every epoch is a permutation.
        standardize: Subtract ``mean`` and divide by ``std`` of the official training set, of each channel. By default
            pixels are in [0, 1].
        center: Instead of that, subtract from every pixel its mean over the official training set, `mean_image`.
        classes: Keep only these classes, relabelled 0, 1, … in this order; a list instead of a class merges several
            classes: ``[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]`` gives two labels to all images of ten classes.
        val_size: Hold out this many training examples for validation. With 0 the validation loop
            runs on the test set, as in the papers' curves; do not select anything by it then.
        subset: Train on this many examples, drawn after the hold-out. By default on all.
        corrupted_fraction: Replace the labels of this fraction of the training examples, once.
        seed: Key of order, hold-out, subset and corruption.
        mean: Mean of each channel to standardize with, instead of that of the official training set; with ``std``.
        std: Standard deviation of each channel to standardize with; with ``mean``.

    Raises:
        ValueError: both ``standardize`` and ``center``; ``mean`` without ``std``, or not one number for each channel;
            on setup, an argument out of its range.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
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
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, replacement, subset, seed)
        if mean is not None or std is not None:
            self.mean, self.std = self._checked_statistics(mean, std)
            standardize = True
        if standardize and center:
            raise ValueError(
                "standardize = True and center = True: each shifts the pixels in its own way; set one of them to false"
            )
        self.standardize = standardize
        self.center = center
        self.classes = classes
        self.val_size = val_size
        self.corrupted_fraction = corrupted_fraction
        self._mean_images: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # shared by variants, which are copies

    @abstractmethod
    def load(self, train: bool) -> LabelledTensors:
        """Read the official training or test set: images (n, channels, height, width) uint8, labels (n,)."""

    def _checked_statistics(
        self, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        channels = len(self.mean)
        if mean is None or std is None or len(mean) != channels or len(std) != channels or not min(std) > 0:
            raise ValueError(
                f"mean = {mean} and std = {std}: give {channels} numbers each, one for each channel of pixels in "
                "[0, 1], and standard deviations > 0"
            )
        return tuple(map(float, mean)), tuple(map(float, std))

    @property
    def preprocessing(self) -> str:
        """Description of the numbers that `transform` makes of the images."""
        if self.center:
            return "pixels in [0, 1] less their mean over the training set"
        if not self.standardize:
            return "pixels in [0, 1], not standardized"
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"pixels in [0, 1], standardized with the mean {mean} and the standard deviation {std}"

    @property
    def num_classes(self) -> int:
        """Number of classes C of the labels."""
        return len(self.classes or self.class_names)

    @cached_property
    def _loaded(self) -> tuple[LabelledTensors, LabelledTensors]:
        return self.load(train=True), self.load(train=False)

    @cached_property
    def _official(self) -> tuple[LabelledTensors, LabelledTensors]:
        """Training and test set of the chosen classes."""
        train, test = self._loaded
        if self.classes is not None:
            train, test = keep_classes(train, self.classes), keep_classes(test, self.classes)
        return train, test

    def variant(self, seed: int, subset: int | None = None) -> Self:
        """Return the data of a run with another seed: other splits of the same images, which are loaded once.

        Args:
            seed: Seed of the run.
            subset: Number of training examples of the run; ``None`` for the number of this data.
        """
        _ = self._official  # loaded before the copy is made, not in each copy
        return super().variant(seed, subset)

    @property
    def mean_image(self) -> Tensor:
        """Mean of the images of the official training set, (channels, height, width), float64 on the CPU.

        Pixels are in [0, 1]. The mean is over the whole set as loaded (the sample, if that is loaded), whatever classes
        and subset of the set are trained on.
        """
        return self._mean_image(torch.device("cpu"), torch.float64)

    def _mean_image(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        # Kept, because copying it to a GPU at every batch would make the host wait.
        if (device, dtype) not in self._mean_images:
            with torch.inference_mode(False):  # it may be needed in validation first, and is used in training too
                exact = (torch.device("cpu"), torch.float64)
                if exact not in self._mean_images:
                    self._mean_images[exact] = _mean_of(self._loaded[0].inputs)
                self._mean_images[device, dtype] = self._mean_images[exact].to(device, dtype)
        return self._mean_images[device, dtype]

    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Hold out validation examples, draw the subset, and corrupt labels."""
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
        """Compute network inputs from uint8 images: in [0, 1], standardized, or centered."""
        inputs = images.to(torch.get_default_dtype()).div_(255)
        if self.center:
            return inputs.sub_(self._mean_image(inputs.device, inputs.dtype))
        if not self.standardize:
            return inputs
        mean, std = (_per_channel(values, inputs.device, inputs.dtype) for values in (self.mean, self.std))
        return inputs.sub_(mean).div_(std)


def _mean_of(images: Tensor) -> Tensor:
    """Return the mean of uint8 images (n, …) as pixels in [0, 1], float64; sums of integers are exact in any order."""
    # In parts, because torch copies what it sums to the type of the sum: 1.2 GB for CIFAR-10.
    total = torch.stack([part.sum(0, dtype=torch.int64) for part in images.split(1000)]).sum(0)
    return total.double() / (255 * len(images))


# Kept, because copying them to a GPU at every batch would make the host wait.
@cache
def _per_channel(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # they may be needed in validation first, and are used in training too
        return torch.tensor(values, device=device, dtype=dtype).view(-1, 1, 1)
