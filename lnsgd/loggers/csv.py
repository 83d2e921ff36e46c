"""The logger that writes ``metrics.csv``."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.lightning import Logger
from lnsgd.records.metrics import MetricsTable
from lnsgd.runs.folder import RunFolder


class CSVLogger(Logger):
    """A logger that writes ``metrics.csv`` into the folder of a run.

    Numbers logged at one step share a row. The file is replaced as a whole with every checkpoint, at the end, and in
    between as often as this takes little time. A ``RunRecord`` has it written before a checkpoint, so that no number
    from before a checkpoint can be lost. When a run is resumed at an earlier step, the rows after that step are removed
    and written again. See `lnsgd.records.metrics.MetricsTable`.

    Args:
        save_dir: Folder of the run.
        resume: Keep the rows of an existing ``metrics.csv``.
    """

    def __init__(self, save_dir: str, resume: bool = False) -> None:
        super().__init__()
        self._run = RunFolder(Path(save_dir))
        self._table = MetricsTable(self._run.metrics, resume)

    @property
    def name(self) -> str:
        """An empty text, because the folder itself is the run."""
        return ""

    @property
    def version(self) -> str:
        """An empty text, because the folder itself is the run."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the run."""
        return str(self._run.path)

    @property
    def log_dir(self) -> str:
        """Folder of the run."""
        return str(self._run.path)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing, because the run's ``config.yaml`` contains the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add numbers to the row of a step."""
        if step is None:
            raise ValueError("CSVLogger.log_metrics needs a step")
        self._table.add(step, metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write the file if it was last written long enough ago."""
        self._table.write_if_due()

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """Write the file."""
        self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file."""
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Write the file if there is anything new."""
        self._table.write()
