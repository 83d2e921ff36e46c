"""Data that is given as tensors."""

import torch
from torch import Tensor

from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors, draw_subset


class InMemory(TensorData):
    """A DataModule of tensors: class labels, or real targets for regression.

    Args:
        train: Training inputs (n, …), floating, and their class labels (n,), int64, or targets (n, …), floating.
        val: Inputs and labels for validation; ``None`` for the training set.
        test: Inputs and labels for testing; ``None`` for the validation set.
        num_classes: C, for class labels; by default the largest label plus one, at least two.
        batch_size: Examples in a training batch over all processes; ``None`` for the whole training set.
        eval_batch_size: Examples in a batch of validation, testing and measuring.
        replacement: Draw training examples with replacement; by default every epoch is a permutation.
        subset: Train on this many examples, a fixed keyed subset; by default on all.
        seed: Key of the order and of the subset.

    Raises:
        ValueError: different numbers of inputs and labels; on setup, a subset larger than the training set.
    """

    def __init__(
        self,
        train: tuple[Tensor, Tensor],
        val: tuple[Tensor, Tensor] | None = None,
        test: tuple[Tensor, Tensor] | None = None,
        num_classes: int | None = None,
        batch_size: int | None = None,
        eval_batch_size: int = 2000,
        replacement: bool = False,
        subset: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, replacement, subset, seed)
        val = train if val is None else val
        self._given: dict[Split, tuple[Tensor, Tensor]] = {
            "train": train,
            "val": val,
            "test": val if test is None else test,
        }
        for split, (inputs, labels) in self._given.items():
            if len(inputs) != len(labels):
                raise ValueError(f"InMemory: {split} has {len(inputs)} inputs, but {len(labels)} labels")
        self._num_classes = _classes(train[1]) if num_classes is None else num_classes

    @property
    def num_classes(self) -> int | None:
        """Number of classes C of the labels; ``None`` for real targets."""
        return self._num_classes

    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Return the given tensors, with a keyed subset of the training set if there is a ``subset``."""
        splits = {split: LabelledTensors(*tensors) for split, tensors in self._given.items()}
        if self.subset is not None:
            splits["train"] = draw_subset(splits["train"], self.subset, self.seed)
        return splits


def _classes(labels: Tensor) -> int | None:
    return None if labels.is_floating_point() else max(2, int(torch.max(labels)) + 1)
