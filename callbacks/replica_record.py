"""Leaves in the run's folder which replica is which, which diverged, and what stopped the others."""

import csv
from dataclasses import asdict
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.callbacks.stopping_rule import LIMIT, rules_of
from lnsgd.callbacks.tables import send_replicas
from lnsgd.modules import ReplicatedModule
from lnsgd.run_folder import RunFolder
from lnsgd.writing import whole_file


class ReplicaRecord(Callback):
    """Writes ``replicas.csv``: a row per replica with its settings and how it ended.

    ``diverged_at`` is the step at which it diverged. ``stopped_by`` is the stopping rule that it satisfied, and
    ``limit`` where the run ended before it did; ``stopped_at`` is the step. What does not apply is empty: all of
    it while a replica moves, the latter two in a run without stopping rules and for a replica that has diverged.
    At the end loggers that take tables get it as one.

    Args:
        run: The run's folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        self._write(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes the file."""
        self._write(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        limited = bool(rules_of(trainer)) and not trainer.interrupted
        self._write(pl_module, trainer.global_step if limited else None)
        if trainer.is_global_zero and not trainer.interrupted:
            send_replicas(trainer, self.run.replicas)

    @rank_zero_only
    def _write(self, module: LightningModule, limit: int | None = None) -> None:
        """Where the run has ended, ``limit`` is the step at which it did."""
        assert isinstance(module, ReplicatedModule)
        frozen = module.frozen
        diverged, stopped = frozen.diverged_at.tolist(), frozen.stopped_at.tolist()
        rows = [
            {
                "replica": index,
                **asdict(replica),
                "diverged_at": _step(diverged[index]),
                "stopped_at": _step(stopped[index]),
                "stopped_by": frozen.stopped_by.get(index),
            }
            for index, replica in enumerate(module.replicas)
        ]
        if limit is not None:
            for index in frozen.moving:
                rows[index] |= {"stopped_at": limit, "stopped_by": LIMIT}
        with whole_file(self.run.replicas) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _step(at: int) -> int | None:
    return at if at >= 0 else None
