"""End a run of several processes when one of them is lost."""

import os

import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer

from lnsgd.lightning import Callback
from lnsgd.runs.processes import Heartbeat, LostProcess
from lnsgd.runs.processes.heartbeat import store_of_group
from lnsgd.runs.processes.lost import is_communication_error

_REMEDY = "Resume from the newest checkpoint"


class WatchProcesses(Callback):
    """End all processes of a run, with one line that names the lost one, if one was killed, hangs or is unreachable.

    Without this callback the remaining processes wait in a collective: on GPUs, and for a process that was stopped,
    until the timeout of the process group, half an hour by default. Each process sends a heartbeat every second. A
    process that sends none for ``patience`` seconds is lost, and the others end with exit code 1. If a collective fails
    by itself, as it does on CPUs at once when a process dies, this takes a few seconds. The remaining process of the
    lowest rank prints the message.

    A process that is alive and hangs in its own code is found when a collective times out, after the time that is set
    in the strategy (``DDPStrategy(timeout=…)``). With one process there is nothing to watch.

    ``lnsgd fit``, ``validate`` and ``test`` add this callback; give it in a config to change its patience.

    Args:
        patience: Seconds without a heartbeat after which a process is lost.

    Raises:
        ValueError: a patience below 5 s.

    Attributes:
        lost: The record of a loss; ``setup`` makes one if it is ``None``.
    """

    def __init__(self, patience: float = 60.0) -> None:
        if not patience >= 5:
            raise ValueError(f"patience = {patience}; give at least 5 seconds, since a busy machine may be slow")
        self.patience = patience
        self.lost: LostProcess | None = None
        self._heartbeat: Heartbeat | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the heartbeat."""
        if (
            not (dist.is_available() and dist.is_initialized())
            or trainer.world_size == 1
            or self._heartbeat is not None
        ):
            return
        lost = self.lost or LostProcess(trainer.global_rank, trainer.world_size, _REMEDY)
        lost.notes = store_of_group(self.patience)
        self._heartbeat = Heartbeat(store_of_group(self.patience), lost, self.patience)
        self._heartbeat.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop the heartbeat."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the heartbeat if all processes were stopped on request; else make sure that this process ends."""
        if isinstance(exception, SystemExit) and exception.code in (0, os.EX_TEMPFAIL):
            self.teardown(trainer, pl_module, "fit")
        elif self.lost is not None and trainer.global_rank and not is_communication_error(exception):
            self.lost.exit_unless_ended(exception)
