"""The progress of a sweep: jobs write how far they are, and a bar adds it up over all cells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lnsgd.console.messages import counted
from lnsgd.lightning import Callback
from lnsgd.records.jobs import JobSpec, read_progress, write_progress
from lnsgd.replicas import networks_of
from lnsgd.runs.writing import Throttle
from lnsgd.sweep.folder import SweepFolder

# The speed is averaged over this time, because the jobs of a sweep differ in length.
_SPEED_SECONDS = 600


class JobProgress(Callback):
    """A callback that writes the finished fraction of a run's steps to a file, about once a second.

    Nothing is written for a run that ends at a time instead of a step.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._throttle = Throttle()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the progress."""
        self._last = networks_of(pl_module).last_step(trainer)
        self._write(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Write the progress if it was last written long enough ago."""
        if self._throttle.due():
            with self._throttle.writing():
                self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self._last and trainer.is_global_zero:
            write_progress(min(1.0, trainer.global_step / self._last), self.path)


class SweepProgressBar:
    """A progress bar over the cells of a sweep that are to be run.

    Args:
        folder: The folder of the sweep.
        jobs: The jobs that are to be run.
        console: Where the bar is drawn.
    """

    def __init__(self, folder: SweepFolder, jobs: Sequence[JobSpec], console: Console) -> None:
        self._folder = folder
        self._open = {spec.name: len(spec.cells) for spec in jobs}
        self._done = 0
        self._throttle = Throttle()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total} cells"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, auto_refresh=False, speed_estimate_period=_SPEED_SECONDS)
        self._task = self._bar.add_task("starting", total=sum(self._open.values()))

    def __enter__(self) -> "SweepProgressBar":
        self._bar.start()
        self._refresh()
        return self

    def __exit__(self, *_: object) -> None:
        self._refresh()
        self._bar.stop()

    def refresh_if_due(self) -> None:
        """Redraw the bar if it was last drawn long enough ago."""
        if self._throttle.due():
            with self._throttle.writing():
                self._refresh()

    def _refresh(self) -> None:
        ended = [job for job in self._open if self._folder.result(job).exists()]
        self._done += sum(self._open.pop(job) for job in ended)
        parts = {job: read_progress(self._folder.progress(job)) for job in self._open}
        under_way = sum(part * self._open[job] for job, part in parts.items())
        description = f"{counted(len(self._open), 'job')} left"
        self._bar.update(self._task, completed=self._done + under_way, description=description)
        self._bar.refresh()
