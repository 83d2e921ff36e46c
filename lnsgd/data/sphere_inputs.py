"""A few points on the unit sphere with real targets, drawn anew for every seed."""

from typing import Any

import torch
from torch import Tensor

from lnsgd import rng
from lnsgd.data.tensor_data import Split, TensorData
from lnsgd.data.tensors import LabelledTensors, draw_subset

_MOST_DRAWS = 100_000


class SphereInputs(TensorData):
    """n inputs with entries U[0, 1], scaled to norm one, and targets U[0, 1] (Gatmiry et al., Fig. 1).

    The distribution of the targets and ``min_eigenvalue`` are our choice, because the paper does not give them: inputs
    are drawn again until λ_min of XXᵀ (n ≤ d) or XᵀX (n > d), X the matrix (n, d) of inputs, is at least
    ``min_eigenvalue``. The smaller λ_min is, the slower is the flow on the zero-loss manifold, and nearly dependent
    inputs take arbitrarily long.

    Training, validation and test set are the same. The examples are keyed by (seed, "data"): every seed is another
    instance.

    Args:
        dimension: d.
        examples: n.
        min_eigenvalue: See above; 0 accepts every draw.
        batch_size: Examples in a batch, see `TensorData`; by default the whole training set.
        options: See `TensorData`.

    Raises:
        ValueError: d or n below 1; on setup, a ``min_eigenvalue`` that no draw reaches, or a subset larger than n.
    """

    num_classes = None

    def __init__(
        self,
        dimension: int = 3,
        examples: int = 3,
        min_eigenvalue: float = 0.1,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        for name, size in (("dimension", dimension), ("examples", examples)):
            if size < 1:
                raise ValueError(f"SphereInputs: {name} = {size}; it must be at least 1")
        super().__init__(batch_size=batch_size, **options)
        self.dimension = dimension
        self.examples = examples
        self.min_eigenvalue = min_eigenvalue

    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Return the examples of this seed as training, validation and test set; a subset of them for training."""
        generator = rng.generator(self.seed, "data")
        inputs = self._draw_inputs(generator)
        targets = torch.rand(self.examples, 1, generator=generator)
        data = LabelledTensors(inputs.to(targets), targets)
        train = data if self.subset is None else draw_subset(data, self.subset, self.seed)
        return {"train": train, "val": data, "test": data}

    def _draw_inputs(self, generator: torch.Generator) -> Tensor:
        for _ in range(_MOST_DRAWS):
            drawn = torch.rand(self.examples, self.dimension, dtype=torch.float64, generator=generator)
            inputs = drawn / drawn.norm(dim=1, keepdim=True)
            gram = inputs @ inputs.T if self.examples <= self.dimension else inputs.T @ inputs
            if torch.linalg.eigvalsh(gram)[0] >= self.min_eigenvalue:
                return inputs
        raise ValueError(
            f"SphereInputs: min_eigenvalue = {self.min_eigenvalue} was not reached in {_MOST_DRAWS:,} draws of "
            f"{self.examples} inputs in {self.dimension} dimensions; give a smaller one"
        )
