"""Stop training when the loss or a weight is NaN or infinite, and keep the checkpoints good."""

import math
from typing import Any, Literal, get_args

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lnsgd import compat
from lnsgd.callbacks.base.run_folder import run_folder
from lnsgd.callbacks.guards.watch_processes import WatchProcesses
from lnsgd.lightning import Callback
from lnsgd.measures.nonfinite import first_nonfinite, nonfinite_batch, nonfinite_state, nonfinite_tensors
from lnsgd.measuring.source import default_layout
from lnsgd.replicas import networks_of
from lnsgd.runs.errors import DivergedError

OnNonFinite = Literal["stop", "ignore"]


class FiniteGuard(Callback):
    """Stop training when the loss or a weight is NaN or infinite, and name the first layer whose output is.

    The loss is checked before it is differentiated, so that the weights are those that gave it. A tensor of the batch
    that is not finite is named by its key; if there is none, a second forward pass over the same batch finds the layer
    (``lnsgd.measures.nonfinite``), with the inputs that `lnsgd.measuring.Source` finds in a batch by default. A
    gradient that is not finite although its loss is shows in the weights that it has changed: at the next step, at a
    checkpoint, or at the end of training. On the CPU every step is checked. On other devices this would make each step
    wait for its result: there every ``every_n_steps``-th step is checked, by default the steps at which the Trainer
    logs.

    A checkpoint with a weight, a buffer or an optimizer state that is not finite is not written: the last good one
    stays as it is. With several processes, the process whose share of the batch has such a loss ends; in ``lnsgd fit``
    the first process then prints the message.

    Replicas are not checked: one that diverges is frozen, and the others are trained on (`ReplicatedModule`).

    ``lnsgd fit`` adds this callback; give it in a config to change its settings.

    Args:
        on_nonfinite: ``stop``, or ``ignore``: warn once, continue training, and write all checkpoints.
        every_n_steps: Check every n-th step.

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
        """Decide which steps are checked, and get the folder of the run, which all processes must ask for."""
        self._run = run_folder(trainer)
        self._watches = not networks_of(pl_module).is_replicated
        on_cpu = trainer.strategy.root_device.type == "cpu"
        self._every = self.every_n_steps or (1 if on_cpu else trainer.log_every_n_steps)  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch for a second forward pass."""
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check the loss."""
        if not self._watches or (self._every > 1 and (trainer.global_step + 1) % self._every):
            return
        if not math.isfinite(value := loss.item()):
            self._report(trainer, f"the loss is {value} at step {trainer.global_step + 1}", self._cause(pl_module))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint from which a run cannot be resumed."""
        if self._watches:
            self._check(trainer, {name: checkpoint.get(name, {}) for name in ("state_dict", "optimizer_states")})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the weights after the last step."""
        self._batch = None
        if self._watches:
            self._check(trainer, {"state_dict": pl_module.state_dict()})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Drop the batch."""
        self._batch = None

    def _check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        for name in nonfinite_tensors(state):
            what = compat.plain_name(name.removeprefix("state_dict."))
            self._report(trainer, f"{what} has entries that are not finite after step {trainer.global_step}", None)
            return

    def _cause(self, module: LightningModule) -> str:
        """Name the tensor that is not finite first, by a second forward pass if weights and batch are finite."""
        if found := nonfinite_state(module) or nonfinite_batch(self._batch):
            return found
        try:
            inputs = self._batch if isinstance(self._batch, Tensor) else default_layout(self._batch)[0]
            found = first_nonfinite(module, inputs)
        except Exception as error:  # whatever `forward` of the user raises, the run ends because of the loss
            reason = " ".join(f"{type(error).__name__}: {error}".partition(";")[0].split())
            return f"weights and batch are finite, but a second forward pass that looks for the layer fails ({reason})"
        return found or "all layers give finite numbers, so the loss of these outputs and targets is the cause"

    def _report(self, trainer: Trainer, what: str, cause: str | None) -> None:
        epoch, batch = trainer.current_epoch, trainer.fit_loop.batch_idx
        message = f"{what} (epoch {epoch}, batch {batch}){f': {cause}' if cause else ''}"
        if self.on_nonfinite == "ignore":
            self._watches = False
            rank_zero_warn(f"{message}; training continues, as on_nonfinite = ignore")
            return
        good = self._run.last_checkpoint
        remedy = "take a smaller learning rate, or set on_nonfinite: ignore of lnsgd.callbacks.FiniteGuard to continue"
        kept = f"; {good} is from before it" if good.exists() else ""
        line = f"{message}; the run has ended{kept}: {remedy}"
        for callback in trainer.callbacks if trainer.global_rank else ():  # type: ignore[attr-defined]
            if isinstance(callback, WatchProcesses) and callback.lost is not None:
                callback.lost.note_divergence(line, trainer.global_step)
        raise DivergedError(line, trainer.global_step)
