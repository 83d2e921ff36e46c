"""Leaves in the run's folder which replica is which, and which diverged."""

import csv
from dataclasses import asdict
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.modules import ReplicatedModule
from lnsgd.run_folder import RunFolder, whole_file


class ReplicaRecord(Callback):
    """Writes ``replicas.csv``: a row per replica with its settings and the step at which it diverged, if it did.

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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        self._write(pl_module)

    @rank_zero_only
    def _write(self, module: LightningModule) -> None:
        assert isinstance(module, ReplicatedModule)
        diverged = [step if step >= 0 else None for step in module.diverged_at.tolist()]
        rows = [
            {"replica": index, **asdict(replica), "diverged_at": diverged[index]}
            for index, replica in enumerate(module.replicas)
        ]
        with whole_file(self.run.replicas) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
