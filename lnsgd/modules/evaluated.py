"""A network with a loss, and its totals on the splits."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from lnsgd.lightning import LightningModule
from lnsgd.loggers.scalars import log_scalars
from lnsgd.losses import Loss
from lnsgd.measures.precision import full_precision
from lnsgd.measuring import Batch
from lnsgd.modules.totals import LossTotals, SplitTotals


class EvaluatedModule(LightningModule):
    """Base of modules that log totals per split, and are validated and tested on clean targets.

    Args:
        loss: Per-example loss.
    """

    totals_class: ClassVar[type[LossTotals]]

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss
        self.totals = SplitTotals(self.totals_class)

    @abstractmethod
    def check_outputs(self, outputs: Tensor, labels: Tensor, num_classes: int | None) -> None:
        """Raise ValueError if outputs do not fit labels, or the data's number of classes, if that is known."""

    @abstractmethod
    def counted(self, losses: Tensor, outputs: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return what a batch adds to its totals: the arguments of ``totals_class.update``."""

    @abstractmethod
    def shown(self, split: str) -> tuple[str, ...]:
        """Return the names of the totals of a split that are logged."""

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Add a validation batch to its totals."""
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Add a test batch to its totals."""
        self._evaluate("test", batch, batch_idx)

    def _evaluate(self, split: str, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        inputs, labels = batch[0], batch[1]
        outputs = self(inputs)
        if batch_idx == 0:
            self.check_batch(outputs, labels)
        with full_precision(outputs.device.type):
            losses = self.loss(outputs, labels)
        self.totals[split].add(*self.counted(losses, outputs, labels, labels))

    def check_batch(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError if outputs do not fit labels, or the classes of the Trainer's data."""
        data = getattr(self.trainer, "datamodule", None)
        self.check_outputs(outputs, labels, getattr(data, "num_classes", None))

    def on_train_epoch_end(self) -> None:
        """Log the training totals of the epoch."""
        self._log_totals("train")

    def on_validation_epoch_end(self) -> None:
        """Log the validation totals."""
        self._log_totals("val")

    def on_test_epoch_end(self) -> None:
        """Log the test totals."""
        self._log_totals("test")

    def _log_totals(self, split: str) -> None:
        values = self.totals[split].finish()
        named = {f"{split}/{name}": values[name] for name in self.shown(split)}
        shown = {name: value for name, value in named.items() if split == "val" and "/loss" not in name}
        log_scalars(self, named, shown)
