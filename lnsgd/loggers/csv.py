"""``metrics.csv``: a row per step, whole at any moment, continued on resume."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from lnsgd.run_folder import RunFolder, Throttle, whole_file
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming

# What can be done about a table of a run that is to go on. It is never replaced unasked: it may be all there is.
MOVE_AWAY = "move it away, and the run goes on without what it had; or start over in another folder"


class CSVLogger(Logger):
    """Writes ``metrics.csv`` into the folder of a run.

    Numbers logged at one step share a row. The file is replaced as a whole: with every checkpoint (before it, where a
    `lnsgd.callbacks.run_record.RunRecord` asks for that: what a checkpoint follows from must not be lost), at the end,
    and in between as often as costs little. When a run goes back to an earlier step (it was resumed), rows after that
    step are dropped and written anew.

    Args:
        save_dir: Folder of the run.
        resume: Go on with the rows of a ``metrics.csv`` that is there.
    """

    def __init__(self, save_dir: str, resume: bool = False) -> None:
        super().__init__()
        self._run = RunFolder(Path(save_dir))
        self._rows: dict[int, dict[str, Any]] = {}
        self._throttle, self._dirty = Throttle(), False
        if resume and self._run.metrics.exists():
            self._read()

    def _read(self) -> None:
        with naming(self._run.metrics, MOVE_AWAY), self._run.metrics.open(newline="") as file:
            for row in csv.DictReader(file):
                if None in row or None in row.values():
                    raise UnreadableError("a row is cut off")
                step = int(row.pop("step"))
                self._rows[step] = {name: value for name, value in row.items() if value != ""}

    @property
    def name(self) -> str:
        """Empty: the folder itself is the run."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the folder itself is the run."""
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
        """Nothing: the run's ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds numbers to the row of a step."""
        if step is None:
            raise ValueError("CSVLogger.log_metrics needs a step")
        if self._rows and step < next(reversed(self._rows)):
            self._rows = {s: row for s, row in self._rows.items() if s <= step}
        row = self._rows.setdefault(step, {})
        # A test after training logs at the last step too, when the epoch counter has moved on.
        row.update({**metrics, "epoch": row["epoch"]} if "epoch" in row else metrics)
        self._dirty = True

    @rank_zero_only
    def save(self) -> None:
        """Writes the file if the last time is long enough ago."""
        if self._throttle.due():
            self.flush()

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """Writes the file."""
        self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the file."""
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Writes the file where there is something new."""
        if not self._dirty:
            return
        names = sorted({name for row in self._rows.values() for name in row} - {"epoch"})
        with self._throttle.writing(), whole_file(self._run.metrics) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", "epoch", *names])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in self._rows.items())
        self._dirty = False
