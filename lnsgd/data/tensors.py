"""A data set of two tensors, and how it is changed once, before training."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from lnsgd import rng


@dataclass(frozen=True)
class LabelledTensors:
    """A data set of n examples, all in memory.

    A subset shares the memory of the data set that it was taken from, and differs in its ``rows``.

    Attributes:
        pool: Inputs (N, …), of any type.
        labels: Class labels (n,), int64; or real targets (n, …).
        rows: Row of each example in the pool, (n,), int64 on the CPU; ``None`` for all N rows in order.
    """

    pool: Tensor
    labels: Tensor
    rows: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """Inputs of the examples (n, …); a copy if the data set is a subset."""
        return self.pool if self.rows is None else self.pool[self.rows.to(self.pool.device)]

    def __len__(self) -> int:
        """Return the number of examples n."""
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> "LabelledTensors":
        """Return the examples with the given indices, int64 on the CPU."""
        rows = indices if self.rows is None else self.rows[indices]
        return LabelledTensors(self.pool, self.labels[indices.to(self.labels.device)], rows)

    def with_labels(self, labels: Tensor) -> "LabelledTensors":
        """Return the same inputs with other labels."""
        return LabelledTensors(self.pool, labels, self.rows)

    def to(self, device: torch.device | str) -> "LabelledTensors":
        """Return the data set on another device."""
        return LabelledTensors(self.pool.to(device), self.labels.to(device), self.rows)


def keep_classes(data: LabelledTensors, classes: Sequence[int | Sequence[int]]) -> LabelledTensors:
    """Keep only the given classes, relabelled 0, 1, … in the given order.

    Args:
        data: A data set with class labels.
        classes: Each a class, or a list of classes that become one.

    Raises:
        ValueError: fewer than two entries, an empty list, a class that is given twice or is not in the data.
    """
    groups = [list(entry) if isinstance(entry, Sequence) else [entry] for entry in classes]
    kept = [old for group in groups for old in group]
    present = set(data.labels.unique().tolist())
    if len(groups) < 2 or not all(groups) or len(set(kept)) < len(kept) or not set(kept) <= present:
        given = [list(entry) if isinstance(entry, Sequence) else entry for entry in classes]
        raise ValueError(
            f"classes = {given}; give two or more different ones of {sorted(present)}, or lists of them that become "
            "one class each and have none in common"
        )
    new_label = torch.full((int(data.labels.max()) + 1,), -1)
    for new, group in enumerate(groups):
        new_label[group] = new
    relabelled = new_label[data.labels]
    return data.with_labels(relabelled)[(relabelled >= 0).nonzero()[:, 0]]


def draw_subset(data: LabelledTensors, size: int, seed: int) -> LabelledTensors:
    """Draw a subset without replacement, keyed by (seed, "subset"); smaller subsets are parts of larger subsets.

    Raises:
        ValueError: size below 1 or above the number of examples.
    """
    if not 1 <= size <= len(data):
        raise ValueError(f"subset = {size}; give 1 to {len(data)}, the number of training examples")
    return data[torch.randperm(len(data), generator=rng.generator(seed, "subset"))[:size]]


def corrupt_labels(data: LabelledTensors, fraction: float, num_classes: int, seed: int) -> LabelledTensors:
    """Replace the labels of a fixed fraction of the examples, once, by uniform draws from all classes.

    Keyed by (seed, "corruption"). Exactly ``round(fraction · n)`` labels are drawn anew; a drawn
    label may be the true label. The examples of a smaller fraction are among the examples of a larger one.

    Raises:
        ValueError: fraction outside [0, 1].
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"corrupted_fraction = {fraction} is outside [0, 1]")
    if fraction == 0:
        return data
    generator = rng.generator(seed, "corruption")
    hit = torch.randperm(len(data), generator=generator)[: round(fraction * len(data))]
    drawn = torch.randint(num_classes, (len(data),), generator=generator)
    labels = data.labels.clone()
    labels[hit] = drawn[hit]
    return data.with_labels(labels)


def perturb_labels(data: LabelledTensors, std: float, seed: int) -> LabelledTensors:
    """Add N(0, std²) to every real target, once, independently for every entry.

    The perturbation is keyed by (seed, "corruption") and proportional to std: another std scales it.

    Raises:
        ValueError: std is negative or not finite; the data has class labels.
    """
    if not (std >= 0 and isfinite(std)):
        raise ValueError(f"label_std = {std}; it must be a finite number >= 0")
    if std == 0:
        return data
    if not data.labels.is_floating_point():
        raise ValueError(f"label_std = {std} is for real targets, but the data has class labels; give 0")
    generator = rng.generator(seed, "corruption")
    drawn = torch.randn(data.labels.shape, dtype=data.labels.dtype, generator=generator)
    return data.with_labels(data.labels + std * drawn)
