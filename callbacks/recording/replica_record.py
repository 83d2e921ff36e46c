"""Record in the folder of a run the settings of each replica and how it ended."""

from dataclasses import asdict
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.callbacks.recording.tables import send_replicas
from lnsgd.callbacks.stopping.rule import rules_of
from lnsgd.lightning import Callback
from lnsgd.records.replicas import LIMIT, End, write_replicas
from lnsgd.replicas import networks_of
from lnsgd.runs.folder import RunFolder


class ReplicaRecord(Callback):
    """Writes ``replicas.csv``: a row per replica with its settings and how it ended.

    ``diverged_at`` is the step at which the replica diverged. ``stopped_by`` is the stopping rule that it satisfied, or
    ``limit`` if the run ended before; ``stopped_at`` is the step. Fields that do not apply are empty: all three while a
    replica is trained, the latter two in a run without stopping rules and for a replica that has diverged. At the end,
    loggers that accept tables get the rows.

    Args:
        run: The run's folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self._write(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the file."""
        self._write(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        limited = bool(rules_of(trainer)) and not trainer.interrupted
        self._write(pl_module, trainer.global_step if limited else None)
        if trainer.is_global_zero and not trainer.interrupted:
            send_replicas(trainer, self.run.replicas)

    @rank_zero_only
    def _write(self, module: LightningModule, limit: int | None = None) -> None:
        """Write the file; ``limit`` is the step at which the run ended, if it has."""
        networks = networks_of(module)
        ends = []
        for number in range(len(networks)):
            if number in networks.stopped_by:
                ends.append(End(stopped_at=networks.frozen_at[number], stopped_by=networks.stopped_by[number]))
            elif number in networks.frozen_at:
                ends.append(End(diverged_at=networks.frozen_at[number]))
            else:
                ends.append(End() if limit is None else End(stopped_at=limit, stopped_by=LIMIT))
        write_replicas(self.run.replicas, list(zip(map(asdict, networks.settings), ends)))
