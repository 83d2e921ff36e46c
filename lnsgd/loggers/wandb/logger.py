"""The logger for Weights & Biases, which never disturbs training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only

from lnsgd import compat
from lnsgd.lightning import WandbLogger as LightningWandbLogger
from lnsgd.loggers.wandb.checkpoints import CheckpointArtifacts
from lnsgd.loggers.wandb.identifiers import check_project, check_run_id, read_run_id, write_run_id
from lnsgd.loggers.wandb.run import finish_run, received_step, start_run
from lnsgd.loggers.wandb.sending import Sender
from lnsgd.loggers.wandb.sent_steps import SentSteps
from lnsgd.loggers.wandb.table import table_of
from lnsgd.records.sent_steps import read_sent_record
from lnsgd.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

# The horizontal axis of everything that is logged.
_STEP = "trainer/global_step"

# The kind of data that are sent to the server at once.
_SENT_AT_ONCE = "tables and checkpoints"


class WandbLogger(LightningWandbLogger):
    """Lightning's W&B logger, which works offline without a key or if the server is unreachable.

    Offline data are kept in the run's folder, and the command that sends them is printed at the end. The id of the W&B
    run is kept there, too (``wandb-run-id``), so that a resumed run continues the same W&B run. ``wandb-sent.json``
    keeps it from sending a number twice: what a killed run had sent after its last checkpoint is not changed.

    Args:
        project: W&B project.
        save_dir: Folder of the run; ``lnsgd fit`` sets it.
        offline: Keep all data local, even if a key is set.
        log_model: Log checkpoints as versions of the artifact ``model-<id of the run>``: ``True`` logs the newest at
            the end of training, with the alias ``final``; ``"all"`` also logs each checkpoint when it is saved,
            including that of a stop by signal. The newest has the alias ``latest``; if a ``ModelCheckpoint`` monitors a
            number, its best has the alias ``best``.
        options: Further arguments of ``wandb.init``, such as ``name``, ``group``, ``tags``, and Lightning's
            ``checkpoint_name`` (another name of the artifact) and ``add_file_policy``.

    Raises:
        ValueError: W&B does not accept the name of the project or the run, or ``log_model`` has another value.
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
        self._artifacts = CheckpointArtifacts(compat.wandb_artifact_name(self), self.add_file_policy)
        self._sender = Sender()
        self._sent: SentSteps | None = None
        compat.wandb_options(self).pop("anonymous", None)  # without effect in W&B, which warns about it at every start

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which is started at first use."""
        if self._experiment is None:
            self._experiment = self._start()
            self._experiment.define_metric(_STEP)
            self._experiment.define_metric("*", step_metric=_STEP, step_sync=True)
        return self._experiment

    @property
    def _run_folder(self) -> RunFolder | None:
        """The folder with the files for resuming the W&B run; ``None`` if the run has no folder of its own."""
        return RunFolder(Path(self.save_dir)) if self.save_dir not in (None, ".") else None

    def _start(self) -> Any:
        folder = self._run_folder
        if folder is None:
            return start_run(self._offline, **compat.wandb_options(self))
        folder.path.mkdir(parents=True, exist_ok=True)
        if (kept := read_run_id(folder.wandb_id)) is not None:
            compat.set_wandb_id(self, kept)
        record = read_sent_record(folder.wandb_sent)
        if folder.last_checkpoint.exists():  # the checkpoint to resume from was logged when it was saved
            self._artifacts.mark_as_logged(folder.last_checkpoint)
        run = start_run(self._offline, **compat.wandb_options(self))
        write_run_id(folder.wandb_id, run.id)
        self._sent = SentSteps(folder.wandb_sent, record, run.id, received_step(run, _STEP))
        return run

    def _log_now(self, values: Mapping[str, Any], step: int | None) -> None:
        """Send the values that the run had not sent before it was resumed."""
        run = self.experiment
        if step is not None and self._sent is not None:
            values = self._sent.unsent(values, step)
        if values.keys() - {"epoch"}:
            run.log({**values, **({} if step is None else {_STEP: step})})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Send numbers, or other values of ``wandb.Run.log``, that the run had not sent before it was resumed."""
        self._sender.send("numbers", lambda: self._log_now(metrics, step))

    @rank_zero_only
    def log_histogram(self, key: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
        """Send a native histogram.

        Args:
            key: Name of the histogram.
            counts: Number of values in each of B bins, shape (B,).
            edges: Edges of the bins, increasing, shape (B + 1,); B is at most 512.
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
        """Send a table, given as columns and rows or as a data frame (``lnsgd.loggers.wandb.table``)."""
        import wandb

        table = wandb.Table(columns=columns, data=data) if dataframe is None else table_of(dataframe, key)
        self._sender.send(_SENT_AT_ONCE, lambda: self._log_now({key: table}, step))

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """Log the checkpoint, or remember the callback that saved it."""
        if self._log_model:
            self._artifacts.note(checkpoint_callback)
        if self._log_model == "all":
            self._sender.send(_SENT_AT_ONCE, lambda: self._artifacts.log_new(self.experiment, checkpoint_callback))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log the final checkpoint or, if training was stopped or has failed, the newest."""
        if self._experiment is None:
            return
        run = self._experiment
        if self._sent is not None:
            self._sent.write()
        if status == "success":
            self._sender.send(_SENT_AT_ONCE, lambda: self._artifacts.log_final(run))
        elif self._log_model == "all" and self._run_folder is not None:
            last = self._run_folder.last_checkpoint
            self._sender.send(_SENT_AT_ONCE, lambda: self._artifacts.log_changed(run, last))

    @rank_zero_only
    def finish(self) -> None:
        """End the W&B run, and print how to send it if it was kept offline."""
        if self._experiment is None:
            return
        if self._sent is not None:
            self._sent.write()
        run, self._experiment = self._experiment, None
        finish_run(run, self._sender)
