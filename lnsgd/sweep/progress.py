"""How far a job of a sweep is, for whoever watches all of them."""

import json
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lnsgd.callbacks.step_progress_bar import last_step
from lnsgd.modules import ReplicatedModule
from lnsgd.untrusted.tables import read_record
from lnsgd.writing import Throttle, whole_file


class SweepProgress(Callback):
    """Writes the part of a run's steps that is done to a file, about once a second.

    A run that ends at a time instead of a step writes nothing.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._throttle = Throttle()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes where the run stands."""
        self._last = _last_step(trainer, pl_module)
        self._write(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Writes where the run stands, if the last time is long enough ago."""
        if self._throttle.due():
            with self._throttle.writing():
                self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self._last and trainer.is_global_zero:
            with whole_file(self.path) as part:
                part.write_text(json.dumps({"done": min(1.0, trainer.global_step / self._last)}) + "\n")


def _last_step(trainer: Trainer, module: LightningModule) -> int | None:
    """The step at which a run ends, where that is known."""
    if isinstance(module, ReplicatedModule):
        return last_step(trainer)
    steps = trainer.estimated_stepping_batches
    return int(steps) if steps not in (float("inf"), -1) else None


def part_done(path: Path) -> float:
    """What `SweepProgress` wrote last, from 0 to 1."""
    return float(read_record(path, {"done": (int, float)})["done"]) if path.exists() else 0.0
