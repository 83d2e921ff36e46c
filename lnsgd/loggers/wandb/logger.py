"""Weights & Biases, never in the way of training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import WandbLogger as LightningWandbLogger
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.loggers.wandb.attempts import Attempts
from lnsgd.loggers.wandb.checkpoints import CheckpointArtifacts
from lnsgd.loggers.wandb.names import check_project, check_run_id
from lnsgd.loggers.wandb.run import finish_run, received_step, start_run
from lnsgd.loggers.wandb.run_id import keep_run_id, kept_run_id
from lnsgd.loggers.wandb.sent import SentSteps, read_noted
from lnsgd.loggers.wandb.table import table_of
from lnsgd.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

# The axis of everything that is logged.
_STEP = "trainer/global_step"

# What asks the server at once.
_ASKING = "tables and checkpoints"


class WandbLogger(LightningWandbLogger):
    """Lightning's W&B logger that goes on offline: without a key, or where the server is not reached.

    What was kept offline is in the run's folder; at the end the command that sends it is printed. The
    run's id is kept there too (``wandb-run-id``), so that what goes on in that folder continues the same
    W&B run, and with ``wandb-sent.json`` sends no number twice: what a killed run had sent after its last checkpoint
    stays as it is.

    Args:
        project: W&B project.
        save_dir: Folder of the run; ``lnsgd fit`` sets it.
        offline: Keep everything local, also where a key is set.
        log_model: Checkpoints as versions of the artifact ``model-<id of the run>``: ``True`` for the newest when
            training has reached its end, with the alias ``final``; ``"all"`` for each as it is saved too, that of a
            stop by signal included. The newest is ``latest``; where a ``ModelCheckpoint`` monitors a number, its best
            is ``best``.
        options: Further arguments of ``wandb.init``, such as ``name``, ``group``, ``tags``, and Lightning's
            ``checkpoint_name`` (another name for the artifact) and ``add_file_policy``.

    Raises:
        ValueError: W&B takes no project or run of that name; ``log_model`` is nothing of the above.
    """

    def __init__(
        self,
        project: str = "lnsgd",
        save_dir: str = ".",
        offline: bool = False,
        log_model: Literal["all"] | bool = False,
        **options: Any,
    ) -> None:
        check_project(project)
        if log_model not in (True, False, "all"):
            raise ValueError(f"log_model = {log_model}; give true, false or all")
        if (run_id := options.get("version") or options.get("id")) is not None:
            check_run_id(str(run_id))
        super().__init__(project=project, save_dir=save_dir, **{k: v for k, v in options.items() if v is not None})
        self._offline = offline
        self._log_model = log_model
        self._artifacts = CheckpointArtifacts(self._checkpoint_name, self.add_file_policy)
        self._attempts = Attempts()
        self._sent: SentSteps | None = None
        self._wandb_init.pop("anonymous", None)  # without effect in W&B, which says so at every start

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; started at the first call."""
        if self._experiment is None:
            self._experiment = self._start()
            self._experiment.define_metric(_STEP)
            self._experiment.define_metric("*", step_metric=_STEP, step_sync=True)
        return self._experiment

    @property
    def _run_folder(self) -> RunFolder | None:
        """Where what is needed to go on is kept; nowhere without a folder of its own."""
        return RunFolder(Path(self.save_dir)) if self.save_dir not in (None, ".") else None

    def _start(self) -> Any:
        folder = self._run_folder
        if folder is None:
            return start_run(self._offline, **self._wandb_init)
        folder.path.mkdir(parents=True, exist_ok=True)
        if (kept := kept_run_id(folder.wandb_id)) is not None:
            self._wandb_init["id"] = self._id = kept
        noted = read_noted(folder.wandb_sent)
        if folder.last_checkpoint.exists():  # what this run goes on from was logged when it was saved
            self._artifacts.take_as_logged(folder.last_checkpoint)
        run = start_run(self._offline, **self._wandb_init)
        keep_run_id(folder.wandb_id, run.id)
        self._sent = SentSteps(folder.wandb_sent, noted, run.id, received_step(run, _STEP))
        return run

    def _log_now(self, values: Mapping[str, Any], step: int | None) -> None:
        """Sends what the run had not sent before it went on."""
        run = self.experiment
        if step is not None and self._sent is not None:
            values = self._sent.unsent(values, step)
        if values.keys() - {"epoch"}:
            run.log({**values, **({} if step is None else {_STEP: step})})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Sends numbers, and whatever else ``wandb.Run.log`` takes, that the run had not sent before it went on."""
        self._attempts.make("numbers", lambda: self._log_now(metrics, step))

    @rank_zero_only
    def log_histogram(self, key: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
        """Sends a native histogram.

        Args:
            key: Its name.
            counts: How many values are in each of B bins, shape (B,).
            edges: Of the bins, increasing, shape (B + 1,); B is at most 512.
            step: Optimizer steps taken.
        """
        import wandb

        self.log_metrics({key: wandb.Histogram(np_histogram=(counts, edges))}, step)

    @rank_zero_only
    def log_table(
        self,
        key: str,
        columns: list[Any] | None = None,
        data: list[Any] | None = None,
        dataframe: "pd.DataFrame | None" = None,
        step: int | None = None,
    ) -> None:
        """Sends a table of columns and rows, or of a data frame (``lnsgd.loggers.wandb.table``)."""
        import wandb

        table = wandb.Table(columns=columns, data=data) if dataframe is None else table_of(dataframe, key)
        self._attempts.make(_ASKING, lambda: self._log_now({key: table}, step))

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """Logs the checkpoint, or remembers who saved it."""
        if self._log_model:
            self._artifacts.note(checkpoint_callback)
        if self._log_model == "all":
            self._attempts.make(_ASKING, lambda: self._artifacts.log_new(self.experiment, checkpoint_callback))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Logs the final checkpoint, or where training was stopped or has failed the newest."""
        if self._experiment is None:
            return
        run = self._experiment
        if self._sent is not None:
            self._sent.write()
        if status == "success":
            self._attempts.make(_ASKING, lambda: self._artifacts.log_final(run))
        elif self._log_model == "all" and self._run_folder is not None:
            last = self._run_folder.last_checkpoint
            self._attempts.make(_ASKING, lambda: self._artifacts.log_changed(run, last))

    @rank_zero_only
    def finish(self) -> None:
        """Ends the W&B run, and says how to send it where it was kept offline."""
        if self._experiment is None:
            return
        if self._sent is not None:
            self._sent.write()
        run, self._experiment = self._experiment, None
        finish_run(run, self._attempts)
