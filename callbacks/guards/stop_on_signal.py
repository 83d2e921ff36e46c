"""Stop a run on a signal, at a point from which it is resumed bit for bit."""

import os
import signal
import sys
import time
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer

from lnsgd import compat
from lnsgd.callbacks.base.run_folder import run_folder
from lnsgd.lightning import Checkpoint
from lnsgd.runs.signals import StopSignals

# Several processes ask each other about this often; the cost is negligible beside that of the steps.
_SECONDS_BETWEEN_QUESTIONS = 1.0


class StopOnSignal(Checkpoint):
    """Save ``checkpoints/last.ckpt`` and end with exit code 75 on SIGUSR1, SIGUSR2, SIGTERM or Ctrl-C.

    A second Ctrl-C ends the process at once, with code 130; the run is then resumed from the checkpoint before, see
    `StopSignals`.

    75 is ``EX_TEMPFAIL``: the run is not finished. The same command, resumed from the checkpoint, ends bit for bit as
    if it had not been stopped. The signal is only noted when it arrives. The checkpoint is written at the end of a
    batch, after the measurements of its step and at a batch after which no gradients are being accumulated. After the
    last batch of an epoch, validation and the end of the epoch come first; a run that is then at its end just ends,
    with exit code 0. A signal that arrives before the first batch stops the run after it.

    It is enough that one of several processes gets the signal. They ask each other every n-th batch, where n is chosen
    from the time that the slowest of them took since they asked last: a signal is noticed about a second late, or a
    batch late if a batch takes longer. The first process ends with exit code 75 and the others with 0, because
    launchers take another code for a crash and kill the processes that are still writing.

    While a Trainer with this callback fits, Lightning does not set signal handlers of its own: its handler of SIGTERM
    ends the run without a checkpoint, and that of SLURM saves from inside the handler, in the middle of a step. Outside
    the main thread signals are not handled at all. Needs ``Trainer(enable_checkpointing=True)``, the default.

    Args:
        signals: Signals noted so far; by default they are noted from ``setup`` to the end of ``fit``.

    Raises:
        SystemExit: the run has been stopped.
    """

    def __init__(self, signals: StopSignals | None = None) -> None:
        self._signals = signals or StopSignals()
        self._listening = False
        self._start()

    def _start(self) -> None:
        self._stopped_by: signal.Signals | None = None
        self._saved_at: int | None = None
        self._postponed = False
        self._batches = self._batches_between = 1
        self._asked_at = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note signals from now on."""
        if stage == "fit" and not self._listening:
            self._signals.__enter__()
            self._listening = True
            compat.ignore_signals(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the previous signal handlers."""
        if self._listening:
            self._signals.__exit__()
            self._listening = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the previous signal handlers."""
        self.teardown(trainer, pl_module, "fit")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the handlers that other callbacks and loggers have set."""
        self._signals.listen()
        self._start()
        self._run = run_folder(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a signal came and only the next batch follows."""
        self._ask(trainer)
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        ending = trainer.is_last_batch or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if self._stopped_by and not accumulating and not ending:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Postpone a save by a batch: validation within an epoch, after the checkpoint, changes callbacks."""
        if self._saved_at is not None and not self._postponed:
            self._saved_at, self._postponed = None, True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a signal came."""
        self._batches = 1
        self._ask(trainer)
        if self._stopped_by:
            self._save(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the process if the checkpoint is written: by now the numbers of the last step are logged too."""
        self._leave(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """End the process if the checkpoint is written."""
        self._leave(trainer)

    def _ask(self, trainer: Trainer) -> None:
        """Find out, on all processes alike, whether one of them got a signal."""
        if self._stopped_by is not None:
            return
        if trainer.world_size == 1:
            self._stopped_by = self._signals.received
            return
        self._batches -= 1
        if self._batches > 0:
            return
        now = time.monotonic()
        mine = torch.tensor([float(self._signals.received or 0), now - self._asked_at])
        found = trainer.strategy.reduce(mine.to(trainer.strategy.root_device), reduce_op="max")
        number, seconds = found.tolist()
        self._stopped_by = signal.Signals(int(number)) if number else None
        affordable = int(self._batches_between * _SECONDS_BETWEEN_QUESTIONS / max(seconds, 1e-9))
        self._batches = self._batches_between = max(1, min(affordable, 2 * self._batches_between))
        self._asked_at = now

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self._run.last_checkpoint)
        self._saved_at = trainer.global_step

    def _leave(self, trainer: Trainer) -> None:
        if self._saved_at is None:
            return
        assert self._stopped_by is not None
        if not trainer.is_global_zero:
            raise SystemExit(0)
        after_the_bar = "" if trainer.progress_bar_callback is None else "\n"
        print(
            f"{after_the_bar}lnsgd: stopped by {self._stopped_by.name} at step {self._saved_at}; resume from "
            f"{self._run.last_checkpoint} (lnsgd fit: the same options, --run_dir {self._run.path} --ckpt_path auto)",
            file=sys.stderr,
        )
        raise SystemExit(os.EX_TEMPFAIL)
