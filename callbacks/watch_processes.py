"""Ends a run of several processes where one of them is lost."""

import os

import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from lnsgd.processes import Beats, LostProcess
from lnsgd.processes.beats import store_of_group
from lnsgd.processes.lost import is_communication_error

_REMEDY = "Go on from the newest checkpoint"


class WatchProcesses(Callback):
    """Ends all processes of a run, with one line that names the lost one, when one was killed, hangs or is unreachable.

    Without it those that are left wait in a collective: on GPUs, and for a process that was stopped, until the timeout
    of the process group, half an hour by default. Each process gives a sign of life every second; one that gives none
    for ``patience`` seconds is lost, and the others end with exit code 1. Where a collective fails by itself, as on
    CPUs at once when a process dies, it takes a few seconds. The process of the lowest rank that is left says it.

    A process that lives and hangs in its own code is found when a collective times out, which the strategy says
    (``DDPStrategy(timeout=…)``). With one process there is nothing to watch.

    ``lnsgd fit``, ``validate`` and ``test`` have one; give it in a config to change its patience.

    Args:
        patience: Seconds without a sign of life.

    Raises:
        ValueError: a patience below 5 s.

    Attributes:
        lost: What is known of a loss; where it is ``None`` before ``setup``, one is made.
    """

    def __init__(self, patience: float = 60.0) -> None:
        if not patience >= 5:
            raise ValueError(f"patience = {patience}; give at least 5 seconds, since a busy machine may take some")
        self.patience = patience
        self.lost: LostProcess | None = None
        self._beats: Beats | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts watching."""
        if not (dist.is_available() and dist.is_initialized()) or trainer.world_size == 1 or self._beats is not None:
            return
        lost = self.lost or LostProcess(trainer.global_rank, trainer.world_size, _REMEDY)
        lost.notes = store_of_group(self.patience)
        self._beats = Beats(store_of_group(self.patience), lost, self.patience)
        self._beats.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops."""
        if self._beats is not None:
            self._beats.stop()
            self._beats = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stops where the run was stopped on request, which all processes are; else sees that this one ends."""
        if isinstance(exception, SystemExit) and exception.code in (0, os.EX_TEMPFAIL):
            self.teardown(trainer, pl_module, "fit")
        elif self.lost is not None and trainer.global_rank and not is_communication_error(exception):
            self.lost.end_after(exception)
