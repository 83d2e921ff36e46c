"""Logs how flat the loss is."""

from math import nan
from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures, rng
from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.measure import share_of
from lnsgd.callbacks.measurement_data import Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.callbacks.per_example_loss import PerExampleLoss, per_example_loss
from lnsgd.modules.replicated import Subject


class HessianTrace(DataCallback):
    """Logs the trace of the Hessian of the mean loss, see `lnsgd.measures.hessian_trace`.

    Logs ``hessian_trace/<split>``, on clean labels, and the parts of the tensors, each with its standard error.
    The data is a fixed keyed subset; the probes are keyed too and the same at every step, so that
    differences along training are not blurred by them. Of a network that has diverged the trace is NaN.

    Args:
        split: On which data.
        examples: Number of examples; ``null`` for the whole split.
        noisy_labels: Log ``noisy_hessian_trace/<split>`` as well, on one fixed draw of the module's own label noise.
            For ReLU networks with the logistic, softmax or squared loss it is the same number, since their
            Gauss–Newton matrix does not depend on the labels.
        method: As in `lnsgd.measures.hessian_trace`.
        rtol: The same.
        max_probes: The same.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        seed: Key of the probes.
        max_overhead: See `MeasureCallback`.
        options: Data, layout of batches and schedule, see `DataCallback`.

    Raises:
        ValueError: a tolerance or number of probes that makes no sense; on measuring, no loss.
    """

    headline = ("hessian_trace", "trace")

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        noisy_labels: bool = False,
        method: measures.Method = "auto",
        rtol: float = 0.02,
        max_probes: int = 1_000,
        loss: PerExampleLoss | None = None,
        seed: int = 0,
        max_overhead: float | None = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(max_overhead=max_overhead, **options)
        measures.Budget(rtol, max_probes=max_probes)  # refuses what makes no sense before training, not in it
        self.split = split
        self.examples = examples
        self.noisy_labels = noisy_labels
        self.method = method
        self.rtol = rtol
        self.max_probes = max_probes
        self.loss = loss
        self.seed = seed

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        names = ("split", "examples", "noisy_labels", "method", "rtol", "max_probes", "seed")
        return {**super().identity, **{name: getattr(self, name) for name in names}, "loss": type(self.loss).__name__}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Traces and standard errors, that of all tensors first."""
        found = self._trace(trainer, subject, "hessian_trace", noise_seed=None)
        if self.noisy_labels:
            found += self._trace(trainer, subject, "noisy_hessian_trace", noise_seed=self.seed)
        return found

    def _trace(self, trainer: Trainer, subject: Subject, name: str, noise_seed: int | None) -> list[Measurement]:
        try:
            trace = measures.hessian_trace(
                subject.module,
                per_example_loss(self.loss, subject.module),
                self.batches(trainer, subject, self.split, self.examples, noise_seed),
                method=self.method,
                rtol=self.rtol,
                max_probes=self.max_probes,
                generator=rng.generator(self.seed, "probes"),
                share=share_of(trainer),
            )
        except measures.NonFiniteError:
            return [Measurement(name, self.split, "", nan, nan)]
        estimates = {"": trace.total, **trace.per_tensor}
        return [Measurement(name, self.split, layer, e.value, e.standard_error) for layer, e in estimates.items()]
