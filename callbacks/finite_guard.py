"""Ends a run whose numbers are no numbers any more, and keeps its checkpoints good."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lnsgd.callbacks.watch_processes import WatchProcesses
from lnsgd.measures.nonfinite import first_nonfinite, nonfinite_tensors
from lnsgd.modules.replicated import ReplicatedModule
from lnsgd.run_errors import DivergedError
from lnsgd.run_folder import RunFolder

OnNonFinite = Literal["stop", "ignore"]


class FiniteGuard(Callback):
    """Ends a run at the step whose loss is NaN or infinite, and says what in the network was the first to be so.

    The loss is looked at before it is differentiated, so that the weights are those that gave it; a second forward
    pass over the same batch then finds the layer (``lnsgd.measures.nonfinite``). A gradient that is not finite though
    its loss is shows in the weights that it has made: at the next step, at a checkpoint, or at the end of training.
    On the CPU every step is looked at. On other devices that would make each step wait for its result: there it is
    every ``every_n_steps``-th, by default where the Trainer logs.

    No checkpoint is written that holds a weight, a buffer or a state of the optimizer that is not finite: the last good
    one stays as it is. In several processes a process ends whose share of the batch has such a loss; in ``lnsgd fit``
    the first one then says it.

    Replicas are not looked at: one that diverges is frozen, and the others go on (`ReplicatedModule`).

    ``lnsgd fit`` has one; give it in a config to change what it does.

    Args:
        on_nonfinite: ``stop``, or ``ignore``: say it once, train on, and write all checkpoints.
        every_n_steps: Look at every n-th step.

    Raises:
        ValueError: another ``on_nonfinite``; ``every_n_steps`` below 1.
        DivergedError: in training, a number that is not finite.
    """

    def __init__(self, on_nonfinite: OnNonFinite = "stop", every_n_steps: int | None = None) -> None:
        if on_nonfinite not in get_args(OnNonFinite):
            raise ValueError(f"on_nonfinite = {on_nonfinite!r}; choose one of {', '.join(get_args(OnNonFinite))}")
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps = {every_n_steps}; give an integer >= 1, or null")
        self.on_nonfinite = on_nonfinite
        self.every_n_steps = every_n_steps
        self._every = 1
        self._batch: Any = None
        self._watches = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settles which steps are looked at, and where the run is, which processes have to ask each other."""
        self._run = RunFolder(Path(trainer.log_dir or trainer.default_root_dir))
        self._watches = not isinstance(pl_module, ReplicatedModule)
        on_cpu = trainer.strategy.root_device.type == "cpu"
        self._every = self.every_n_steps or (1 if on_cpu else trainer.log_every_n_steps)  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keeps the batch for a second look."""
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Looks at the loss."""
        if not self._watches or (self._every > 1 and (trainer.global_step + 1) % self._every):
            return
        if not math.isfinite(value := loss.item()):
            self._report(trainer, f"the loss is {value} at step {trainer.global_step + 1}", self._cause(pl_module))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint that nothing can go on from."""
        if self._watches:
            self._check(trainer, {name: checkpoint.get(name, {}) for name in ("state_dict", "optimizer_states")})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at what the last step has made of the weights."""
        self._batch = None
        if self._watches:
            self._check(trainer, {"state_dict": pl_module.state_dict()})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lets go of the batch."""
        self._batch = None

    def _check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        for name in nonfinite_tensors(state):
            what = name.removeprefix("state_dict.")
            self._report(trainer, f"{what} has entries that are not finite after step {trainer.global_step}", None)
            return

    def _cause(self, module: LightningModule) -> str:
        inputs = self._batch[0] if isinstance(self._batch, Sequence) else self._batch
        if not isinstance(inputs, Tensor):
            return "its batch is no tensor of inputs, so that the layer is not looked for"
        with torch.no_grad():
            found = first_nonfinite(module, inputs)
        return found or "all layers give finite numbers, so that it is the loss of these outputs and targets"

    def _report(self, trainer: Trainer, what: str, cause: str | None) -> None:
        epoch, batch = trainer.current_epoch, trainer.fit_loop.batch_idx
        message = f"{what} (epoch {epoch}, batch {batch}){f': {cause}' if cause else ''}"
        if self.on_nonfinite == "ignore":
            self._watches = False
            rank_zero_warn(f"{message}; trained on, as on_nonfinite = ignore")
            return
        good = self._run.last_checkpoint
        remedy = "take a smaller learning rate, or on_nonfinite: ignore of lnsgd.callbacks.FiniteGuard to train on"
        kept = f"; {good} is from before it" if good.exists() else ""
        line = f"{message}; the run has ended{kept}: {remedy}"
        for callback in trainer.callbacks if trainer.global_rank else ():  # type: ignore[attr-defined]
            if isinstance(callback, WatchProcesses) and callback.lost is not None:
                callback.lost.note_divergence(line, trainer.global_step)
        raise DivergedError(line, trainer.global_step)
