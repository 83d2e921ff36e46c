"""Measurers in a Trainer: the context of measuring, and the state that callbacks of one Trainer share."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from lnsgd import compat, rng
from lnsgd.callbacks.base.run_folder import note_run_folder, restore_run_folder, run_folder
from lnsgd.callbacks.base.which_weights import WhichWeights, fingerprint, tensors_of
from lnsgd.lightning import Callback
from lnsgd.measures import OutputsFunction, Share, outputs_of
from lnsgd.measuring import (
    TRAINED,
    BatchLayout,
    Context,
    GivenData,
    LoadedData,
    Measurement,
    Measurer,
    Source,
    Split,
    Subject,
    unreadable,
)
from lnsgd.records.measures import MeasurementTable
from lnsgd.replicas import data_of_network, networks_of
from lnsgd.runs.processes import check_strategy


class SharedState:
    """State that the measuring callbacks of one Trainer share: opened loaders, forward passes, ``measures.parquet``.

    The first of these callbacks owns it. It ends with the Trainer's ``fit``, ``validate`` or ``test``, except for the
    table, which a second ``fit`` of the same Trainer continues.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = ref(trainer)
        self.table: MeasurementTable | None = None
        self.announced: set[str] = set()
        self.forget()

    def belongs_to(self, trainer: Trainer) -> bool:
        """Return whether this is the state of a Trainer."""
        return self._trainer() is trainer

    def forget(self) -> None:
        """Drop the loaders that were opened and what was found of the networks."""
        self.loaded = LoadedData()
        self.requested: dict[Split, Any] = {}
        self.counted_in_validation: set[Hashable] = set()
        self.which_weights: WhichWeights | None = None
        self._step = -1
        self._findings: dict[tuple[int, str], dict[Hashable, Any]] = {}
        self._fingerprint_at = -1
        self._fingerprint = torch.zeros(0)

    def write_table(self) -> None:
        """Write what has been measured so far to ``measures.parquet``; only the first process has rows to write."""
        if self.table is not None:
            self.table.write()

    def findings(self, step: int, replica: int, weights: str) -> dict[Hashable, Any]:
        """Return what was found of some weights of a replica after a step; see `lnsgd.measuring.Subject`."""
        if step != self._step:
            self._findings, self._step = {}, step
        return self._findings.setdefault((replica, weights), {})

    def fingerprint_of_trained(self, step: int, module: LightningModule) -> Tensor:
        """Return the fingerprint of a module after a step, taken at the first request, right after the step."""
        if step != self._fingerprint_at:
            self._fingerprint, self._fingerprint_at = fingerprint(tensors_of(module)), step
        return self._fingerprint


class TrainerContext(Context):
    """Measuring inside a Trainer, with its device, precision, processes, loaders and hooks of batch transfer.

    Args:
        trainer: The Trainer.
        together: The measurers among its callbacks, each with its source.
        state: What its measuring callbacks share.
    """

    def __init__(self, trainer: Trainer, together: Sequence[tuple[Measurer, Source]], state: SharedState) -> None:
        self.trainer = trainer
        self._state = state
        self.together = together
        self.loaded = state.loaded
        self.announced = state.announced
        self.device = trainer.strategy.root_device
        self.precision = trainer.precision_plugin
        self.share = Share(
            trainer.global_rank, trainer.world_size, lambda sums: trainer.strategy.reduce(sums, reduce_op="sum")
        )

    def largest(self, values: Tensor) -> Tensor:
        """Return the elementwise maximum of a tensor over all processes."""
        return self.trainer.strategy.reduce(values, reduce_op="max")

    def loader(self, split: Split) -> Any:
        """Return the Trainer's DataLoader of a split, or the one that it would ask for.

        Raises:
            ValueError: the Trainer does not know the split, or has several loaders for it.
        """
        trainer = self.trainer
        attached = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}.get(split)
        if attached is not None:
            return _only(attached, split)  # not kept: Lightning may load it anew
        if split not in self._state.requested:
            self._state.requested[split] = _only(_requested(trainer, split), split)
        return self._state.requested[split]

    def on_device(self, batch: Any) -> Any:
        """Return a batch on the device after the hooks of batch transfer."""
        return compat.transferred(self.trainer, self.precision.convert_input(batch))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say that the Trainer validates, so that hooks which augment ``if self.trainer.training`` do not."""
        with compat.validating(self.trainer):
            yield

    def log_message(self, message: str) -> None:
        """Log a message on the first process."""
        rank_zero_info(message)

    def findings(self, replica: int, weights: str = TRAINED) -> dict[Hashable, Any]:
        """Return what was found of a replica's weights after the present step: the trained ones, or others."""
        return self._state.findings(self.trainer.global_step, replica, weights)

    def tabulate(self, found: Mapping[int, Iterable[Measurement]], epoch: int) -> None:
        """Add measurements by replica, the same on all processes, to ``measures.parquet``, unless this is a dry run."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        table = self._table()
        if self.trainer.is_global_zero:
            table.add(self.trainer.global_step, epoch, found)

    def _table(self) -> MeasurementTable:
        # All processes must ask for the folder.
        folder = run_folder(self.trainer)
        if self._state.table is None:
            # A Trainer that has taken steps continues its run, whoever has kept the table so far.
            continues = self.trainer.ckpt_path is not None or self.trainer.global_step > 0
            self._state.table = MeasurementTable(folder.measures, resume=continues)
        return self._state.table


def subjects_of(trainer: Trainer, module: LightningModule) -> Iterator[Subject]:
    """Yield the networks of a run that have not diverged; each is valid until the next is asked for.

    Args:
        trainer: The Trainer of the run.
        module: Its module.
    """
    for number, network in networks_of(module):
        yield Subject(network, data_of_network(trainer.datamodule, number), number)  # type: ignore[attr-defined]


def _requested(trainer: Trainer, split: Split) -> Any:
    """Return the loader that Lightning would ask for but has not asked for yet."""
    request = compat.loader_request(trainer, split)
    if request is None:
        raise unreadable(split, "is not known to the Trainer", "measure other splits, or ")
    try:
        with rng.preserved():
            return request()
    except Exception as error:  # the user's code, which nobody calls while training, such as before setup("test")
        raise unreadable(split, f"is not there while training ({type(error).__name__}: {error})") from error


def _only(loaders: Any, split: Split) -> Any:
    """Return the one loader of a split."""
    found = compat.loaders_of(loaders)
    if not isinstance(found, list | tuple | dict):
        return found
    members = list(found.values() if isinstance(found, dict) else found)
    if len(members) == 1 and isinstance(members[0], DataLoader):
        return members[0]
    names = f" ({', '.join(map(repr, found))})" if isinstance(found, dict) else ""
    raise unreadable(
        split, f"is a {type(found).__name__} of {len(found)} loaders{names}, and it is not clear which to take"
    )


class MeasuringCallback(Measurer, Callback):
    """Base of the callbacks that are measurers, see `lnsgd.measuring.Measurer`.

    Attributes:
        source: Where the data comes from that is measured on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source = Source()
        self._shared: SharedState | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a Trainer."""
        # Lightning gives each callback these methods of the module.
        own = {name: value for name, value in self.__dict__.items() if name not in ("log", "log_dict")}
        return {**own, "_shared": None}

    def context(self, trainer: Trainer) -> TrainerContext:
        """Return the context of measuring in a Trainer."""
        together = [(callback, callback.source) for callback in _measuring_callbacks(trainer)]
        return TrainerContext(trainer, together, self.shared(trainer))

    def shared(self, trainer: Trainer) -> SharedState:
        """Return what the measuring callbacks of a Trainer share. The first of them keeps it."""
        owner = next(iter(_measuring_callbacks(trainer)), self)
        if owner._shared is None or not owner._shared.belongs_to(trainer):
            owner._shared = SharedState(trainer)
        return owner._shared

    def which_weights(self, trainer: Trainer, module: LightningModule) -> WhichWeights:
        """Return which weights the module holds, which callbacks may average or replace."""
        shared = self.shared(trainer)
        if shared.which_weights is None:
            shared.which_weights = WhichWeights(trainer, module)
        return shared.which_weights

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the trained weights, which callbacks may replace when training ends."""
        self.which_weights(trainer, pl_module).keep_trained()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the network can be measured."""
        check_strategy(trainer.strategy)
        network = networks_of(pl_module).template
        is_called = self.measured_splits and self.source.outputs is outputs_of
        if is_called and not compat.is_overridden("forward", network):
            raise ValueError(
                f"{type(network).__name__} has no `forward`; measures need one from inputs (B, …) to outputs (B, …), "
                "or outputs= that says how the network is called"
            )
        if not compat.is_overridden("configure_model", network):  # else there are no modules yet
            self.check(network)
        self._forget()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop what was read and found."""
        self._forget()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the folder of the run, in which a resumed run continues."""
        note_run_folder(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue in the folder of the run."""
        restore_run_folder(trainer, checkpoint)

    def _forget(self) -> None:
        if self._shared is not None:
            self._shared.forget()


class WithData(MeasuringCallback):
    """Base of the callbacks that measure on data.

    They work in any Trainer. ``module(inputs)`` returns the network's outputs, one tensor (B, …); give ``outputs`` if
    it does not.

    lnsgd's own DataModules say themselves what to measure on (``measurement_dataloader``). With any other data, the
    DataLoaders of the Trainer are used: their data sets are read in sequence, see ``lnsgd.measuring.loaders``, which
    does not change training in any bit. A training set that augments its images is therefore measured on augmented
    images, always the same ones; give ``data`` to measure on clean ones. The Trainer's limits, such as
    ``limit_train_batches``, do not apply.

    Args:
        data: Data to measure on instead: DataLoaders by split, ``{"train": loader}``, or a function from a split to its
            DataLoader.
        batch: Function from a batch of a DataLoader to inputs (B, …) and labels (B, …), such as
            ``lambda batch: (batch["pixel_values"], batch["labels"])``; by default the first two elements of the
            batch, or ``labels`` (``label``) and all other tensors of a dictionary. Inputs may also be a dictionary of
            tensors, the keyword arguments of ``forward``, or a tuple of tensors. Class labels are indices (B,).
        outputs: How the network is called, ``outputs(network, inputs) -> (B, …)``, such as
            ``lambda network, inputs: network.net(inputs)``; by default see `lnsgd.measures.outputs_of`.
        options: Schedule, see `MeasureCallback`.

    Raises:
        ValueError: data of an unknown split; on setup, a module without ``forward``; on measuring, data that cannot be
            read, or batches of another layout.
    """

    def __init__(
        self,
        data: GivenData | None = None,
        batch: BatchLayout | None = None,
        outputs: OutputsFunction | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.source = Source(data, batch, outputs)


def _measuring_callbacks(trainer: Trainer) -> list[MeasuringCallback]:
    return [c for c in trainer.callbacks if isinstance(c, MeasuringCallback)]  # type: ignore[attr-defined]
