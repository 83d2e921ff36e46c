"""Callbacks on activation sites, which count firings in the validation pass of Lightning too."""

from contextlib import ExitStack
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from lnsgd import compat
from lnsgd.callbacks.base.measuring import subjects_of
from lnsgd.callbacks.base.scheduled import DataCallback
from lnsgd.callbacks.base.which_weights import fingerprint, tensors_of
from lnsgd.measures import evaluation_mode, outputs_of
from lnsgd.measuring import ActivationMeasurer, Batch, Context
from lnsgd.measuring.neurons import FiringPass, call_in_format
from lnsgd.replicas import networks_of


class ValidationPass:
    """The validation pass of Lightning, in which firings are counted batch by batch.

    Args:
        module: The network that is validated. What counts is one call of it for a batch.
        key: The forward pass of a measurer that this one replaces.
        context: Where the network is measured.
    """

    def __init__(self, module: nn.Module, key: FiringPass, context: Context) -> None:
        self.key = key
        self.is_of_trained: bool | None = None
        self.firings = key.new_count(module)
        self._module = module
        self._context = context
        self._observing, self._counting = ExitStack(), ExitStack()
        self._is_counting = False

    def start_batch(self, batch: Batch) -> None:
        """Count in the forward pass of a batch that comes now."""
        if not self._is_counting:
            self._try_out(batch)
        self._counting.enter_context(self.firings.batch(batch.labels))

    def _try_out(self, batch: Batch) -> None:
        """Find the sites, and observe the modules among them from now on."""
        with torch.no_grad(), evaluation_mode(self._module), self.firings.observing():
            self.firings.try_out(
                lambda few: call_in_format(self._module, few, self.key.source, self._context), batch.inputs
            )
        # The mode of PyTorch that sees functions would change what torch.compile makes of them.
        self._observing.enter_context(self.firings.observing(whole=True, functions=False))
        self._is_counting = True

    @property
    def is_complete(self) -> bool:
        """Whether all sites were counted, in one call of the network for each batch."""
        return self.firings.is_one_pass_a_batch and not self.firings.has_functions

    def end_batch(self) -> None:
        """Stop counting in the batch."""
        self._counting.close()

    def end(self) -> None:
        """Stop observing the network."""
        self._counting.close()
        self._observing.close()


class ActivationCallback(ActivationMeasurer, DataCallback):
    """Base of the callbacks that measure each activation site on each split, by how often its units fire.

    Callbacks on the same sites on the same data share one forward pass. At the end of an epoch the validation
    split of lnsgd's own data costs none: its firings are counted in Lightning's validation pass.
    """

    _pass: ValidationPass | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count in this validation pass if a measurement follows it and the pass covers the whole split."""
        due = self.is_due_after_epoch(trainer) and "val" in self.splits and not networks_of(pl_module).is_replicated
        if not due or not compat.validation_covers_split(trainer) or compat.has_compiled_parts(pl_module):
            return
        (subject,) = subjects_of(trainer, pl_module)
        # Other loaders may shuffle, repeat or leave out examples, and other calls of the network are not seen.
        if self.source.is_own(subject, "val") and self.source.outputs is outputs_of:
            context, shared = self.context(trainer), self.shared(trainer)
            key = self.firing_pass(subject, "val", self.source, context)
            if key not in shared.counted_in_validation:  # else another callback counts
                shared.counted_in_validation.add(key)
                self._pass = ValidationPass(pl_module, key, context)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """After the last batch of an epoch, take the fingerprint of the weights: others may be validated."""
        super().on_train_batch_end(trainer, pl_module, *args)
        is_counted = trainer.is_last_batch and "val" in self.splits and not networks_of(pl_module).is_replicated
        if is_counted and self.is_due_after_epoch(trainer):
            self.shared(trainer).fingerprint_of_trained(trainer.global_step, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the firings of the batch, if the weights are those that are trained and not averages of them."""
        if not self._pass:
            return
        if self._pass.is_of_trained is None:
            trained = self.shared(trainer).fingerprint_of_trained(trainer.global_step, pl_module)
            self._pass.is_of_trained = torch.equal(trained, fingerprint(tensors_of(pl_module)))
        if self._pass.is_of_trained:
            self._pass.start_batch(Batch.of(batch, trainer.world_size))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop counting."""
        if self._pass:
            self._pass.end_batch()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the firings, if all sites were counted, in one call for each batch, of the weights that are trained."""
        if self._pass:
            self._pass.end()
            done, self._pass = self._pass, None
            self.shared(trainer).counted_in_validation.discard(done.key)
            context = self.context(trainer)
            unfit = torch.tensor([float(not (done.is_of_trained and done.is_complete))], device=context.device)
            if not context.largest(unfit).item():  # all processes keep theirs or none
                context.findings(0)[done.key] = done.firings.found(together=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop counting, and write ``measures.parquet``."""
        if self._pass:
            self._pass.end()
            self._pass = None
        super().on_exception(trainer, pl_module, exception)
