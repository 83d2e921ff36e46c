"""The base of the data sets that are drawn at random."""

from abc import abstractmethod

import torch

from lnsgd import rng
from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors, draw_subset, perturb_labels

# Part of the key of each split, so that splits are independent.
_SPLITS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}


class SyntheticData(TensorData):
    """Base of the data sets that are drawn anew for every seed, keyed by (seed, "data", split).

    Args:
        train_size: Number of training examples.
        test_size: Number of validation examples, and of test examples.
        label_std: Standard deviation of noise that is added to the training labels once: a property of the data,
            whereas `lnsgd.label_noise` is drawn at every step.
        options: See `TensorData`; the batch size is 1 by default.

    Raises:
        ValueError: a size below 1; on setup, a ``label_std`` that is negative, or not 0 for class labels.
    """

    def __init__(
        self,
        train_size: int,
        test_size: int,
        batch_size: int | None = 1,
        eval_batch_size: int = 2000,
        replacement: bool = True,
        subset: int | None = None,
        seed: int = 0,
        label_std: float = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, replacement, subset, seed)
        for name, size in (("train_size", train_size), ("test_size", test_size)):
            if size < 1:
                raise ValueError(f"{name} = {size}; it must be at least 1")
        self.train_size = train_size
        self.test_size = test_size
        self.label_std = label_std

    @abstractmethod
    def draw(self, size: int, generator: torch.Generator) -> LabelledTensors:
        """Draw independent examples.

        Args:
            size: Number of examples.
            generator: Source of randomness.
        """

    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Draw the splits of this seed."""
        sizes: dict[Split, int] = {"train": self.train_size, "val": self.test_size, "test": self.test_size}
        splits = {
            split: self.draw(sizes[split], rng.generator(self.seed, "data", number))
            for split, number in _SPLITS.items()
        }
        splits["train"] = perturb_labels(splits["train"], self.label_std, self.seed)
        if self.subset is not None:
            splits["train"] = draw_subset(splits["train"], self.subset, self.seed)
        return splits
