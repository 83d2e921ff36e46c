"""What all callbacks share that measure on data."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.model_helpers import is_overridden

from lnsgd.callbacks.measure import MeasureCallback, network
from lnsgd.callbacks.measurement_data import BatchLayout, DataSource, GivenData, MeasurementData, Split, forget
from lnsgd.modules.replicated import Subject


class DataCallback(MeasureCallback):
    """Base of the callbacks that measure on data: ``batches`` gives it to them.

    They work in any Trainer. ``module(inputs)`` must give the network's outputs, one tensor (B, …).

    lnsgd's own DataModules are asked for what to measure on (``measurement_dataloader``). Of any other data the
    DataLoaders that the Trainer has are measured: their data sets, in sequence, see
    ``lnsgd.callbacks.loader_batches``. Training is not moved by it in any bit. A training set that
    augments its images is so measured on augmented ones, always the same ones; give ``data`` for clean ones. The
    Trainer's limits, such as ``limit_train_batches``, do not apply.

    Args:
        data: What to measure on in place of that: DataLoaders by split, ``{"train": loader}``, or a function from a
            split to its DataLoader.
        batch: From a batch of a DataLoader to inputs (B, …) and labels (B, …), such as
            ``lambda batch: (batch["pixel_values"], batch["labels"])``; by default a batch's first two elements.
            Class labels are indices (B,).
        schedule: See `MeasureCallback`.

    Raises:
        ValueError: data of an unknown split; on setup, a module without ``forward``; on measuring, data that cannot be
            read, or batches of another layout.
    """

    def __init__(self, data: GivenData | None = None, batch: BatchLayout | None = None, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.source = DataSource(data, batch)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, **self.source.identity}

    def batches(
        self, trainer: Trainer, subject: Subject, split: Split, examples: int | None, noise_seed: int | None = None
    ) -> MeasurementData:
        """This process's share of a split: batches (inputs, labels) on its device, the same at every look."""
        return self.source.batches(trainer, subject, split, examples, noise_seed)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that there are outputs to measure."""
        net = network(pl_module)
        if not is_overridden("forward", net, LightningModule):
            raise ValueError(
                f"{type(net).__name__} has no `forward`; measures need one from inputs (B, …) to outputs (B, …)"
            )
        forget(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of what was read."""
        forget(trainer)
