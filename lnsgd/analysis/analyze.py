"""From checkpoints to one table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning import LightningDataModule
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from lnsgd.analysis.bench import bench
from lnsgd.analysis.journal import journal_in
from lnsgd.analysis.measuring import Measure, available_splits, default_measures, refusals
from lnsgd.analysis.opening import Given, open_sources
from lnsgd.analysis.resuming import Found, Resuming
from lnsgd.analysis.source import Checkpoint, Source
from lnsgd.analysis.table import rows_of, tabled
from lnsgd.callbacks import SpectralDensity

# The speed is averaged over this long: some measures take a thousand times as long as others.
_SPEED_SECONDS = 600


def analyze(
    inputs: Sequence[str | Path],
    *,
    data: LightningDataModule | None = None,
    measures: Sequence[Measure] | None = None,
    model: nn.Module | None = None,
    loss: Callable[..., Any] | None = None,
    init: str | Path | None = None,
    out: str | Path | None = None,
    accelerator: str = "auto",
    batch_size: int | None = None,
    trust: Sequence[str] = (),
) -> pd.DataFrame:
    """Measures checkpoints with the measuring callbacks of `lnsgd.callbacks`.

    Data is streamed: a batch at a time goes through the network. What was measured with the same weights, data and
    settings before, in the same ``out``, is not measured again.

    Args:
        inputs: Folders of runs (θ₀ and every checkpoint that was kept, all replicas), checkpoints of runs, or files of
            weights (``.pt``, ``.pth``, ``.ckpt``, ``.safetensors``) of ``model``.
        data: What is measured on; by default what the run's config says.
        measures: Callbacks; by default loss and error, active and class-associated neurons, distance from
            initialization, norms, Hessian trace, largest eigenvalue and implicit regularizer. Of these, what cannot be
            taken of a network is left out; what is given here is an error then.
        model: The network of files of weights, or a LightningModule with a ``forward``.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default that of the run, or of the LightningModule.
        init: File of θ₀; by default that of the run.
        out: Folder where what was measured is kept, and found again. By default nothing is kept.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        batch_size: Examples in a forward pass; by default as the data says.
        trust: Packages whose code the configs of runs may have imported, such as that of your own noise; those of
            lnsgd, PyTorch's layers and optimizers, torchvision's models, torchmetrics and Lightning always may.

    Returns:
        A row for each number: checkpoint, step, epoch (missing where the file does not say them), replica, split,
        measure, layer, value, stderr (NaN where it is exact).

    Raises:
        ValueError: a file that is no checkpoint, asks for code or does not fit; a run without config; an input that
            is not there; a measure that cannot be taken.
        OSError: data is missing.
    """
    given = Given(model, loss, data, None if init is None else Path(init), batch_size, trust)
    sources = open_sources([Path(one) for one in inputs], given)
    folder = None if out is None else Path(out)
    return run_analysis(sources, measures or [], measures is None, folder, accelerator, Console(quiet=True)).table


@dataclass(frozen=True)
class Spectrum:
    """What `lnsgd.callbacks.SpectralDensity` found of one network, to be drawn.

    Attributes:
        checkpoint: Its file.
        replica: Its number.
        measure: The callback.
        tensors: Nodes and weights.
    """

    checkpoint: Checkpoint
    replica: int
    measure: SpectralDensity
    tensors: dict[str, Tensor]


@dataclass
class Analysis:
    """What was found.

    Attributes:
        sources: What was measured.
        rows: Of the table.
        spectra: To be drawn.
    """

    sources: Sequence[Source]
    rows: list[dict[str, Any]] = field(default_factory=list)
    spectra: list[Spectrum] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """See `analyze`."""
        return tabled(self.rows)

    def add(self, checkpoint: Checkpoint, found: Found) -> None:
        """Adds a measure of one network."""
        self.rows += rows_of(checkpoint, found.replica, found.taken.rows)
        if found.taken.tensors and isinstance(found.measure, SpectralDensity):
            self.spectra.append(Spectrum(checkpoint, found.replica, found.measure, found.taken.tensors))


def run_analysis(
    sources: Sequence[Source],
    asked: Sequence[Measure],
    defaults: bool,
    out: Path | None,
    accelerator: str,
    console: Console,
) -> Analysis:
    """See `analyze`. Nothing is written before all measures have been tried on a few examples of each source.

    Args:
        sources: What is measured.
        asked: Measures that must be taken.
        defaults: Whether to take `default_measures` besides, those that can be.
        out: See `analyze`.
        accelerator: The same.
        console: Where is said what is left out, and how far it is.

    Raises:
        ValueError: a measure that was asked for cannot be taken.
    """
    chosen = [choose(source, asked, defaults, accelerator, console) for source in sources]
    analysis = Analysis(sources)
    with journal_in(out) as journal, progress_bar(console) as bar:
        task = bar.add_task("", total=sum(_number(*pair) for pair in zip(sources, chosen)))
        done = 0
        for source, measures in zip(sources, chosen):
            each = _number(source, measures) // len(source.checkpoints)
            with bench(source, measures, accelerator) as trainer:
                resuming = Resuming(source, measures, trainer, journal, out)
                for checkpoint in source.checkpoints:
                    bar.update(task, description=f"{source.name} {checkpoint.path.name}")
                    for found in resuming.of(checkpoint):
                        analysis.add(checkpoint, found)
                        bar.advance(task)
                    done += each
                    bar.update(task, completed=done)  # replicas that had diverged are not measured
    return analysis


def choose(
    source: Source, asked: Sequence[Measure], defaults: bool, accelerator: str, console: Console
) -> list[Measure]:
    """The measures that are taken of a source, after each was tried on a few examples.

    Says which of the default measures cannot be taken, and how names in files were read.

    Raises:
        ValueError: a measure that was asked for cannot be taken.
    """
    for note in source.notes:
        console.print(note, style="dim", highlight=False, soft_wrap=True)
    with bench(source, [], accelerator) as trainer:
        for checkpoint in source.checkpoints:
            source.load(checkpoint)
            if (subject := next(iter(source.subjects(trainer)), None)) is not None:
                break
        else:
            raise ValueError(f"{source.name}: all networks in its checkpoints had diverged; nothing can be measured")
        usual = default_measures(available_splits(trainer, subject)) if defaults else []
        usual = [one for one in usual if all(type(one) is not type(other) for other in asked)]
        measures = [*usual, *asked]
        refused = refusals(measures, trainer, source, subject)
    for measure, why in refused:
        name = type(measure).__name__
        if any(measure is one for one in asked):
            raise ValueError(f"{name} cannot be taken of {source.name}: {why}")
        console.print(f"{name} is left out: {why}", style="dim", highlight=False, soft_wrap=True, markup=False)
    return [measure for measure in measures if all(measure is not refusal.measure for refusal in refused)]


def _number(source: Source, measures: Sequence[Measure]) -> int:
    return len(source.checkpoints) * len(source.seeds) * len(measures)


def progress_bar(console: Console) -> Progress:
    """How far it is, and how long it will take; only on a terminal."""
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
