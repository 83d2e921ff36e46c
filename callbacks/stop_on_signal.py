"""Stops a run on a signal, at a place from which it goes on bit for bit."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from lnsgd.run_folder import RunFolder
from lnsgd.stop_signals import StopSignals

# Several processes ask each other about this often, which costs nothing beside the steps.
_SECONDS_BETWEEN_QUESTIONS = 1.0


class StopOnSignal(Checkpoint):
    """On SIGUSR1, SIGUSR2, SIGTERM or Ctrl-C: saves ``checkpoints/last.ckpt`` and ends the process with exit code 75.

    A second Ctrl-C ends it at once, with code 130, and the run goes on from the checkpoint before; see `StopSignals`.

    75 is ``EX_TEMPFAIL``: the run is not over, and the same command that goes on from the checkpoint ends bit for bit
    as if it had not been stopped. The signal is only noted when it comes. The checkpoint is written at the end of a
    batch, after the measures of its step and where gradients are not being accumulated. After the last batch of an
    epoch validation and the end of the epoch come first; a run that is at its end then just ends, with exit code 0. A
    signal that comes before the first batch stops the run after it.

    Of several processes it is enough that one gets the signal. They ask each other every n-th batch, where n is chosen
    from the time that the slowest of them took since they asked last: a signal is noticed about a second late, or a
    batch late where a batch takes longer. Exit code 75 is that of the first process; the others end with 0, because
    launchers take another code for a crash, and kill those that are still writing.

    While a Trainer with this callback fits, Lightning sets no signal handlers of its own: its handler of SIGTERM ends
    the run without a checkpoint, that of SLURM saves from inside the handler, in the middle of a step. Outside the
    main thread signals are not handled at all. Needs ``Trainer(enable_checkpointing=True)``, the default.

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
        """Notes signals from now on."""
        if stage == "fit" and not self._listening:
            self._signals.__enter__()
            self._listening = True
            trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Puts the handlers back that were there before."""
        if self._listening:
            self._signals.__exit__()
            self._listening = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same."""
        self.teardown(trainer, pl_module, "fit")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals back from callbacks and loggers that have set handlers."""
        self._signals.listen()
        self._start()
        self._run = RunFolder(Path(trainer.log_dir or trainer.default_root_dir))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves, where a signal came and nothing but the next batch follows."""
        self._ask(trainer)
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        ending = trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps
        if self._stopped_by and not accumulating and not ending:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves again a batch later: a validation within an epoch, after the checkpoint, has changed callbacks."""
        if self._saved_at is not None and not self._postponed:
            self._saved_at, self._postponed = None, True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, where a signal came."""
        self._batches = 1
        self._ask(trainer)
        if self._stopped_by:
            self._save(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the process if the checkpoint is there: by now the numbers of the last step have been logged too."""
        self._leave(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """The same."""
        self._leave(trainer)

    def _ask(self, trainer: Trainer) -> None:
        """Settles, the same on all processes, whether one of them got a signal."""
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
            f"{after_the_bar}lnsgd: stopped by {self._stopped_by.name} at step {self._saved_at}; go on from "
            f"{self._run.last_checkpoint} (lnsgd fit: the same options, --run_dir {self._run.path} --ckpt_path auto)",
            file=sys.stderr,
        )
        raise SystemExit(os.EX_TEMPFAIL)


def _nothing() -> None:
    """Stands for Lightning's registration of signal handlers."""
