"""Logs how sharp the loss is."""

from math import nan
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures, rng
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measure import share_of
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.callbacks.per_example_loss import PerExampleLoss, per_example_loss
from lnsgd.measures.top_eigenvalues import check_settings
from lnsgd.modules.replicated import Subject


class TopEigenvalues(DataCallback):
    """Logs the largest eigenvalues of the Hessian of the mean loss, see `lnsgd.measures.top_eigenvalues`.

    Logs ``top_eigenvalue_1/<split>``, the sharpness along training, ``_2`` and so on, on clean labels; and
    ``top_eigenvalue_residual/<split>``, the largest of their residuals, which says whether they have converged.
    The data is a fixed keyed subset. Of a network that has diverged all are NaN.

    Args:
        split: On which data.
        examples: Number of examples; ``null`` for the whole split.
        count: As in `lnsgd.measures.top_eigenvalues`.
        rtol: The same.
        max_products: The same.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        seed: Key of the random vectors that the iteration starts with.
        max_overhead: See `MeasureCallback`.
        options: Data, layout of batches and schedule, see `DataCallback`.

    Raises:
        ValueError: a count, tolerance or number of products that makes no sense; on measuring, no loss, or more
            eigenvalues than parameters.
    """

    headline = ("top_eigenvalue_1", "sharpness")

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        count: int = 1,
        rtol: float = 1e-3,
        max_products: int = 200,
        loss: PerExampleLoss | None = None,
        seed: int = 0,
        max_overhead: float | None = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(max_overhead=max_overhead, **options)
        check_settings(count, rtol, max_products)  # refuses what makes no sense before training, not in it
        self.split = split
        self.examples = examples
        self.count = count
        self.rtol = rtol
        self.max_products = max_products
        self.loss = loss
        self.seed = seed

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        names = ("split", "examples", "count", "rtol", "max_products", "seed")
        return {**super().identity, **{name: getattr(self, name) for name in names}, "loss": type(self.loss).__name__}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """The eigenvalues, and their largest residual."""
        try:
            found = measures.top_eigenvalues(
                subject.module,
                per_example_loss(self.loss, subject.module),
                self.batches(trainer, subject, self.split, self.examples),
                count=self.count,
                rtol=self.rtol,
                max_products=self.max_products,
                generator=rng.generator(self.seed, "probes"),
                share=share_of(trainer),
            )
            values, residual = found.values.tolist(), found.residuals.max().item()
        except measures.NonFiniteError:
            values, residual = [nan] * self.count, nan
        return [
            *(Measurement(f"top_eigenvalue_{k}", self.split, "", value) for k, value in enumerate(values, 1)),
            Measurement("top_eigenvalue_residual", self.split, "", residual),
        ]
