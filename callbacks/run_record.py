"""Leaves in the run's folder what is needed to run it again, and how it ended."""

import json
import platform
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from lnsgd import __version__
from lnsgd.callbacks.stopping_rule import stopped_by
from lnsgd.callbacks.tables import send_final_measures
from lnsgd.loggers import CSVLogger
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.checkpoint import save_safetensors
from lnsgd.writing import NotWrittenError, remove_parts, whole_file


class RunRecord(Callback):
    """Writes ``config.yaml`` and ``init.safetensors`` when training starts, ``finished.json`` when it ends.

    Loggers get the config too, and those that take tables the final measures in one.

    Args:
        run: The run's folder.
        config: The resolved config as YAML.
        settings: The same as nested dictionaries, for loggers.
    """

    def __init__(self, run: RunFolder, config: str, settings: dict[str, Any]) -> None:
        self.run = run
        self.config = config
        self.settings = settings
        self._processes: list[dict[str, int]] = []
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Removes what a run that was killed has left half-written."""
        remove_parts(self.run.path, alone=True)

    def state_dict(self) -> dict[str, Any]:
        """How long training has taken so far, and by how many processes it was done from which step on."""
        return {"seconds": self._seconds(), "processes": self._processes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Counts on from there."""
        self._seconds_before = state_dict["seconds"]
        self._processes = list(state_dict.get("processes", []))

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _note_processes(self, trainer: Trainer) -> None:
        """Says where a run goes on with other processes than before."""
        number, step = trainer.world_size, trainer.global_step
        if step == 0:
            self._processes = []
        if self._processes and (before := self._processes[-1]["processes"]) != number:
            now = "1 process" if number == 1 else f"{number} processes"
            print(
                f"lnsgd: going on at step {step} with {now} where there were {before}: it takes the same steps up to "
                "the order of sums, but layers that draw numbers, such as dropout, draw others",
                file=sys.stderr,
            )
        if not self._processes or self._processes[-1]["processes"] != number:
            self._processes.append({"from_step": step, "processes": number})

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the files; a resumed run keeps its initial weights."""
        self._note_processes(trainer)
        self._started = time.monotonic()
        self.run.finished.unlink(missing_ok=True)
        with whole_file(self.run.config) as part:
            part.write_text(self.config)
        if trainer.global_step == 0:
            weights = {name: value.clone().contiguous() for name, value in pl_module.state_dict().items()}
            with whole_file(self.run.init) as part:
                save_safetensors(weights, part)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.settings)

    @rank_zero_only
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes ``metrics.csv`` first: a run that is killed after the checkpoint does not log it again.

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
        """Says that the run reached its end, and what it ran on; after ``metrics.csv``, which is complete by then."""
        if trainer.interrupted:
            return
        _write_metrics(trainer)
        send_final_measures(trainer, self.run.measures)
        ended = {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(self._seconds(), 1),
            "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "device": _device_name(trainer.strategy.root_device),
            "processes": trainer.world_size,
            "threads": torch.get_num_threads(),
            "versions": {
                "lnsgd": __version__,
                "torch": torch.__version__,
                "pytorch-lightning": version("pytorch-lightning"),
            },
        }
        if len(self._processes) > 1:
            ended["process_history"] = self._processes
        if (reason := stopped_by(trainer, pl_module)) is not None:
            ended["stopped_by"] = reason
        with whole_file(self.run.finished) as part:
            part.write_text(json.dumps(ended, indent=2) + "\n")


def _write_metrics(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.flush()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
