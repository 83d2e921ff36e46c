"""Record in the folder of a run what is needed to run it again, and how it ended."""

import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.callbacks.recording.tables import send_final_measures
from lnsgd.callbacks.stopping.rule import stopped_by
from lnsgd.lightning import Callback
from lnsgd.loggers import CSVLogger
from lnsgd.records.changes import Change, append_change
from lnsgd.records.provenance import provenance_of_now, write_provenance
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.resume import set_aside_later
from lnsgd.runs.writing import NotWrittenError, remove_parts, whole_file
from lnsgd.untrusted.checkpoint import save_safetensors
from lnsgd.untrusted.texts import read_yaml


class RunRecord(Callback):
    """Writes ``config.yaml`` and ``init.safetensors`` when training starts, ``finished.json`` when it ends.

    When a run is resumed, its ``config.yaml`` stays, and the options that differ are added to ``changes.json``. A run
    that goes back to an earlier step than that of its newest checkpoint sets the later checkpoints aside.

    Loggers also get the config, and loggers that accept tables get the final measures.

    Args:
        run: The run's folder.
        config: The resolved config as YAML.
        settings: The resolved config as nested dictionaries, for loggers.
        changes: The options that differ from those of the run that is resumed.
    """

    def __init__(self, run: RunFolder, config: str, settings: dict[str, Any], changes: Sequence[Change] = ()) -> None:
        self.run = run
        self.config = config
        self.settings = settings
        self.changes = list(changes)
        self._processes: list[dict[str, int]] = []
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove what a run that was killed has left half-written."""
        remove_parts(self.run.path, alone=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the training time so far, and the number of processes from each step on."""
        return {"seconds": self._seconds(), "processes": self._processes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the time and the processes of a checkpoint."""
        self._seconds_before = state_dict["seconds"]
        self._processes = list(state_dict.get("processes", []))

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _note_processes(self, trainer: Trainer) -> None:
        """Note the number of processes, and print a line if the run is resumed with another number."""
        number, step = trainer.world_size, trainer.global_step
        if step == 0:
            self._processes = []
        if self._processes and (before := self._processes[-1]["processes"]) != number:
            now = "1 process" if number == 1 else f"{number} processes"
            print(
                f"lnsgd: resuming at step {step} with {now} instead of {before}: the steps are the same up to the "
                "order of sums, but layers that draw random numbers, such as dropout, draw others",
                file=sys.stderr,
            )
        if not self._processes or self._processes[-1]["processes"] != number:
            self._processes.append({"from_step": step, "processes": number})

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the config and the initial weights; a resumed run keeps both, and notes what has changed."""
        self._note_processes(trainer)
        self._started = time.monotonic()
        self.run.finished.unlink(missing_ok=True)
        self._record_config(trainer)
        if trainer.global_step == 0:
            weights = {name: value.clone().contiguous() for name, value in pl_module.state_dict().items()}
            with whole_file(self.run.init) as part:
                save_safetensors(weights, part)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.settings)

    def _record_config(self, trainer: Trainer) -> None:
        step = trainer.global_step
        resumed = step > 0 and self.run.config.exists()
        if step == 0:
            self.run.changes.unlink(missing_ok=True)  # of a run that ended before its first checkpoint
        if not resumed:
            with whole_file(self.run.config) as part:
                part.write_text(self.config)
        if step > 0 and (self.changes or not resumed):
            started_from = None if resumed else str(trainer.ckpt_path)
            append_change(self.run, step, self.changes, read_yaml(self.config), started_from)
        for path in set_aside_later(self.run, step) if resumed else ():
            print(f"lnsgd: the run goes back to step {step}; a later checkpoint is now {path}", file=sys.stderr)

    @rank_zero_only
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write ``metrics.csv`` before the checkpoint: a run that is killed after it does not log these numbers again.

        Raises:
            NotWrittenError: the run's folder was removed.
        """
        if not self.run.config.exists():
            raise NotWrittenError(
                f"{self.run.config} is gone: the folder of the run was removed or replaced while it was trained; "
                "bring it back and start again, or start over in another folder"
            )
        _write_metrics(trainer)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``finished.json``, after ``metrics.csv``, which is complete by then."""
        if trainer.interrupted:
            return
        _write_metrics(trainer)
        send_final_measures(trainer, self.run.measures)
        provenance = provenance_of_now(
            packages=["pytorch-lightning"],
            epochs=trainer.current_epoch,
            steps=trainer.global_step,
            seconds=round(self._seconds(), 1),
            device=_device_name(trainer.strategy.root_device),
            processes=trainer.world_size,
            process_history=self._processes if len(self._processes) > 1 else (),
            stopped_by=stopped_by(trainer, pl_module),
        )
        write_provenance(provenance, self.run.finished)


def _write_metrics(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.flush()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
