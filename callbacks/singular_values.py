"""Logs the singular values of weights and features."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor

from lnsgd import measures
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class SingularValues(DataCallback):
    """Logs ``singular_value_1``, ``_2``, … and ``effective_rank`` of weight and of feature matrices.

    Of every trained weight matrix (``singular_value_1/<tensor>``), and on each split of what every activation site
    gives, a row per example (``singular_value_1/<split>/<layer>``). See `lnsgd.measures.effective_rank`.

    Args:
        splits: On which data features are taken.
        layers: Shell-style patterns of module names; by default all activation modules.
        number: How many singular values are logged, the largest ones.
        tolerance: Singular values count for the rank above this part of the largest.
        examples: On this many examples of each split, a fixed keyed subset; ``null`` for all.
        options: Data, layout of batches and schedule, see `DataCallback`.

    Raises:
        ValueError: number below 1, or a tolerance outside (0, 1); on measuring, a pattern that matches no module.
    """

    headline = ("effective_rank", "rank")

    def __init__(
        self,
        splits: Sequence[Split] = ("train",),
        layers: Sequence[str] | None = None,
        number: int = 5,
        tolerance: float = 0.01,
        examples: int | None = 10_000,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if number < 1:
            raise ValueError(f"SingularValues: number = {number}; give at least 1")
        if not 0 < tolerance < 1:
            raise ValueError(
                f"SingularValues: tolerance = {tolerance} is outside (0, 1); it is relative to the largest"
            )
        self.splits = splits
        self.layers = layers
        self.number = number
        self.tolerance = tolerance
        self.examples = examples

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        mine = {name: getattr(self, name) for name in ("splits", "layers", "number", "tolerance", "examples")}
        return {**super().identity, **mine}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Singular values and rank of each matrix."""
        found: list[Measurement] = []
        for name, weight in measures.trainable_parameters(subject.module).items():
            if weight.ndim == 2:
                found += self._of(weight, "", name)
        for split in self.splits:
            batches = self.batches(trainer, subject, split, self.examples)
            for name, matrix in measures.features(subject.module, batches, self.layers).items():
                found += self._of(matrix, split, name)
        return found

    def _of(self, matrix: Tensor, split: str, layer: str) -> list[Measurement]:
        values = measures.singular_values(matrix).tolist()
        rank = measures.effective_rank(values, self.tolerance)
        largest = (
            Measurement(f"singular_value_{k}", split, layer, value) for k, value in enumerate(values[: self.number], 1)
        )
        return [Measurement("effective_rank", split, layer, rank), *largest]
