"""From checkpoints to one table."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pytorch_lightning import LightningDataModule
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn

from lnsgd.analysis.checkpoints import Checkpoint, CheckpointSet, Overrides, open_inputs, set_up_data
from lnsgd.analysis.context import choose_device, measuring_context
from lnsgd.analysis.measurers import ResumableMeasuring, Selection, Taken, choose_measurers, with_sources
from lnsgd.measuring import Measurer
from lnsgd.records.analyses import analysis_table, checkpoint_rows
from lnsgd.records.journal import journal_in

# The speed is averaged over this many seconds: some measures take a thousand times as long as others.
_SPEED_SECONDS = 600

# A larger part of the examples is most of them.
_MOST = 0.5


def analyze(
    inputs: Sequence[str | Path],
    *,
    data: LightningDataModule | None = None,
    measures: Sequence[Measurer] | None = None,
    model: nn.Module | None = None,
    loss: Callable[..., Any] | None = None,
    init: str | Path | None = None,
    out: str | Path | None = None,
    accelerator: str = "auto",
    batch_size: int | None = None,
    trust: Sequence[str] = (),
) -> pd.DataFrame:
    """Measure checkpoints with the measurers of `lnsgd.measuring` or the callbacks of `lnsgd.callbacks`.

    Data is streamed: one batch at a time goes through the network. What was measured before with the same weights,
    data and settings, in the same ``out``, is not measured again.

    Args:
        inputs: Folders of runs (θ₀ and every checkpoint that was kept, all replicas), checkpoints of runs, or files of
            weights (``.pt``, ``.pth``, ``.ckpt``, ``.safetensors``) of ``model``.
        data: The data to measure on; by default the data that the run's config names.
        measures: Measurers or measuring callbacks; by default loss and error, active and class-associated neurons,
            distance from initialization, norms, Hessian trace, largest eigenvalue and implicit regularizer. A default
            measure that cannot be taken of a network is left out; one that is given here raises an error instead.
        model: The network of files of weights, or a LightningModule with a ``forward``.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the loss of the run or of the LightningModule.
        init: File of the initial weights θ₀; by default the file of the run.
        out: Folder that keeps what was measured, for later calls. By default nothing is kept.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        batch_size: Number of examples in a forward pass; by default the setting of the data.
        trust: Packages whose code the configs of runs may import, such as the package of your own noise. The classes
            of lnsgd, PyTorch's layers and optimizers, torchvision's models, torchmetrics and Lightning are always
            allowed.

    Returns:
        A row for each number: checkpoint, step, epoch (missing where the file does not say them), replica, split,
        measure, layer, value, stderr (NaN where the number is exact), which_weights (``trained`` or ``averaged``).

    Raises:
        ValueError: a file is not a checkpoint, asks for code or does not fit; a run has no config; an input does not
            exist; a measure cannot be taken.
        OSError: data is missing.
    """
    overrides = Overrides(model, loss, data, None if init is None else Path(init), batch_size, trust)
    sets = open_inputs([Path(one) for one in inputs], overrides)
    selection = Selection(measures or [], with_defaults=measures is None)
    folder = None if out is None else Path(out)
    return run_analysis(sets, selection, folder, accelerator, Console(quiet=True)).table


class ToDraw(NamedTuple):
    """Results of a measurer that are drawn.

    Attributes:
        checkpoint: The checkpoint of the network.
        taken: The results.
    """

    checkpoint: Checkpoint
    taken: Taken


@dataclass
class Analysis:
    """The results of an analysis.

    Attributes:
        sets: The checkpoint sets that were measured.
        rows: Rows of the table.
        to_draw: Results for single networks that are drawn.
    """

    sets: Sequence[CheckpointSet]
    rows: list[dict[str, Any]] = field(default_factory=list)
    to_draw: list[ToDraw] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """The tidy table, see `analyze`."""
        return analysis_table(self.rows)

    def add(self, checkpoint: Checkpoint, taken: Taken) -> None:
        """Add the results of one measurer for one network."""
        measured = [one._replace(which_weights=checkpoint.which_weights) for one in taken.measurements]
        self.rows += checkpoint_rows(checkpoint.path, checkpoint.step, checkpoint.epoch, taken.replica, measured)
        if taken.tensors:
            self.to_draw.append(ToDraw(checkpoint, taken))


def run_analysis(
    sets: Sequence[CheckpointSet], selection: Selection, out: Path | None, accelerator: str, console: Console
) -> Analysis:
    """Measure checkpoint sets; see `analyze`.

    Nothing is written before every measurer has been tried on a few examples of each set.

    Args:
        sets: The checkpoint sets.
        selection: The measurers that are asked for.
        out: See `analyze`.
        accelerator: See `analyze`.
        console: Where it prints what is left out, and shows the progress.

    Raises:
        ValueError: a measurer that is asked for cannot be taken.
        OSError: data is missing.
    """
    set_up_data(sets, choose_device(accelerator))
    chosen = [choose_measurers(one, selection, accelerator, console) for one in sets]
    analysis = Analysis(sets)
    with journal_in(out) as journal, progress_bar(console) as bar:
        each = [len(one.networks) * len(measurers) for one, measurers in zip(sets, chosen)]
        task = bar.add_task("", total=sum(number * len(one.checkpoints) for one, number in zip(sets, each)))
        done = 0
        for one, measurers, number in zip(sets, chosen, each):
            with measuring_context(one, accelerator, with_sources(measurers)) as context:
                measuring = ResumableMeasuring(one, measurers, context, journal, out)
                shown = Shown(bar, task, done)
                context.on_progress = shown.part
                for checkpoint in one.checkpoints:
                    bar.update(task, description=f"{one.name} {checkpoint.path.name}")
                    for taken in measuring.measure(checkpoint):
                        analysis.add(checkpoint, taken)
                        _warn_of_errors(one, taken, console)
                        shown.add()
                    done += number
                    shown.set(done)  # replicas that had diverged are not measured
    return analysis


class Shown:
    """Shows on a progress bar how many measurements are done, and the part of the present one that is done.

    Args:
        bar: The bar.
        task: Its task.
        done: Number of measurements that are done.
    """

    def __init__(self, bar: Progress, task: TaskID, done: int) -> None:
        self._bar = bar
        self._task = task
        self._done = done

    def set(self, done: int) -> None:
        """Show a number of measurements as done."""
        self._done = done
        self._bar.update(self._task, completed=done)

    def add(self) -> None:
        """Show one more measurement as done."""
        self.set(self._done + 1)

    def part(self, fraction: float) -> None:
        """Show a part of the present measurement as done, from 0 to 1."""
        self._bar.update(self._task, completed=self._done + fraction)


def _warn_of_errors(checkpoints: CheckpointSet, taken: Taken, console: Console) -> None:
    """Warn once if a network that is not of a run errs on most examples: its inputs may be others than in training."""
    worst = max((row for row in taken.measurements if row.measure == "error"), key=lambda row: row.value, default=None)
    if not checkpoints.is_foreign or worst is None or worst.value <= _MOST or checkpoints.has_warned:
        return
    checkpoints.has_warned = True
    said = (
        f"{checkpoints.name} errs on {worst.value:.1%} of the {worst.split} split. A trained network that does so "
        f"usually needs inputs that are standardized as in its training; here they are {checkpoints.preprocessing}: "
        "give --data.standardize true, or its own --data.mean and --data.std"
    )
    if console.quiet:
        warnings.warn(said, stacklevel=2)
    else:
        console.print(f"Warning: {said}", style="yellow", highlight=False, soft_wrap=True, markup=False)


def progress_bar(console: Console) -> Progress:
    """Return a bar that shows progress and the remaining time; it is hidden unless the console is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    return Progress(*columns, console=console, speed_estimate_period=_SPEED_SECONDS, transient=True, disable=hidden)
