"""Logs how flat the loss is."""

from typing import Any

from pytorch_lightning import Trainer

from lnsgd import measures, rng
from lnsgd.callbacks.measure import MeasureCallback, Split, measurement_batches, module_loss
from lnsgd.callbacks.measurements import Measurement
from lnsgd.losses import Loss
from lnsgd.modules.replicated import Subject


class HessianTrace(MeasureCallback):
    """Logs the trace of the Hessian of the mean loss on clean labels, see `lnsgd.measures.hessian_trace`.

    Logs ``hessian_trace/<split>`` with its standard error. The data is a fixed keyed subset; the
    probes are keyed too and the same at every step, so that differences along training are not
    blurred by them.

    Args:
        split: On which data.
        examples: Number of examples; ``null`` for the whole split.
        probes: Number of Hutchinson probes, at least 2.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        seed: Key of the probes.
        schedule: See `MeasureCallback`.

    Raises:
        ValueError: fewer than two probes; on measuring, no loss.
    """

    headline = ("hessian_trace", "trace")

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        probes: int = 16,
        loss: Loss | None = None,
        seed: int = 0,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        if probes < 2:
            raise ValueError(f"HessianTrace: probes = {probes}; at least 2 are needed for a standard error")
        self.split = split
        self.examples = examples
        self.probes = probes
        self.loss = loss
        self.seed = seed

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        own = {"split": self.split, "examples": self.examples, "probes": self.probes, "seed": self.seed}
        return {**super().identity, **own, "loss": type(self.loss).__name__}

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Trace and standard error."""
        trace = measures.hessian_trace(
            subject.module,
            self.loss or module_loss(subject.module),
            measurement_batches(trainer, subject, self.split, self.examples),
            probes=self.probes,
            generator=rng.generator(self.seed, "probes"),
            reduce=lambda sums: trainer.strategy.reduce(sums, reduce_op="sum"),
        )
        return [Measurement("hessian_trace", self.split, "", trace.total.value, trace.total.standard_error)]
