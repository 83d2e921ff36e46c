"""From what a user names to networks: runs, checkpoints of runs, files of weights."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn

from lnsgd.analysis.bench import set_batch_size
from lnsgd.analysis.plain import PlainNetwork
from lnsgd.analysis.run_config import read_config
from lnsgd.analysis.source import Source
from lnsgd.analysis.unwrapping import unwrapped
from lnsgd.data import ReplicatedData
from lnsgd.modules import ReplicatedModule
from lnsgd.run_folder import RunFolder


@dataclass(frozen=True)
class Given:
    """What is said beside the checkpoints, in place of what the config of a run says.

    Attributes:
        model: The network, or a LightningModule; its weights mean nothing.
        loss: Per-example loss ``(outputs, labels) -> (B,)``.
        data: What is measured on.
        init: File of the initial weights.
        batch_size: Examples in a forward pass.
        trusted: Packages of which the configs of runs may name classes, besides those that are harmless.
    """

    model: nn.Module | None = None
    loss: Callable[..., Any] | None = None
    data: LightningDataModule | None = None
    init: Path | None = None
    batch_size: int | None = None
    trusted: Sequence[str] = ()


def open_sources(inputs: Sequence[Path], given: Given) -> list[Source]:
    """Every run once, with the checkpoints that were named or all that it kept; files of weights together.

    Raises:
        ValueError: nothing to open, no run, no checkpoint, or one that does not fit.
    """
    if not inputs:
        raise ValueError("nothing to analyze; give runs or checkpoints, such as runs/mnist")
    sources: dict[Path | None, Source] = {}
    for path in inputs:
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder; give a run's folder or a checkpoint")
        run = _run_of(path)
        home = None if given.model is not None or run is None else run.path.resolve()
        if home not in sources:
            sources[home] = _plain(path, given) if home is None or run is None else _of_run(run, given)
        sources[home].add(_files(path))
    opened = list(sources.values())
    for source in opened:
        if source.init is not None:
            source.initial_weights()  # refuses what does not fit before anything is measured
        if given.batch_size is not None and source.data is not None:
            set_batch_size(source.data, given.batch_size)
    return opened


def _run_of(path: Path) -> RunFolder | None:
    """The run that a folder is or that a file belongs to."""
    if path.is_dir():
        return RunFolder(path)
    run = RunFolder.of_checkpoint(path)
    beside = RunFolder(path.parent)
    return run or (beside if beside.config.exists() else None)


def _files(path: Path) -> list[Path]:
    """A file itself; of a run θ₀ and every checkpoint.

    Raises:
        ValueError: a run that has neither.
    """
    if not path.is_dir():
        return [path]
    run = RunFolder(path)
    kept = sorted(run.checkpoints.glob("*.ckpt"), key=lambda file: (file.name.startswith("last"), file.name))
    found = [file for file in (run.init, *kept) if file.exists()]
    if not found:
        raise ValueError(f"{path} holds no checkpoints; give a run's folder, or checkpoint files with their --model")
    return found


def _of_run(run: RunFolder, given: Given) -> Source:
    made = read_config(run, given.trusted)
    module: LightningModule = made.module
    data: LightningDataModule = given.data or made.data
    if given.loss is not None:
        module.loss = given.loss  # type: ignore[assignment]
    if made.replicas:
        module, data = ReplicatedModule(module, made.replicas), ReplicatedData(data, made.replicas)
    init = given.init or (run.init if run.init.exists() else None)
    return Source(run.path.resolve().name, module, data, [], init, made.precision)


def _plain(path: Path, given: Given) -> Source:
    if given.model is None:
        raise ValueError(
            f"{path}: no config.yaml of a run beside it says what model it is of; say it, such as --model "
            "lnsgd.models.MLP --model.widths [784,600,10]"
        )
    model = unwrapped(copy.deepcopy(given.model))  # of two sources each has its own
    if isinstance(model, LightningModule):
        module = model
        if given.loss is not None:
            module.loss = given.loss  # type: ignore[assignment]
    else:
        module = PlainNetwork(model, given.loss)
    if given.data is None:
        raise ValueError(f"{path}: no run says on what data it is measured; say it, such as --data lnsgd.data.MNIST")
    return Source(path.stem, module, given.data, [], given.init)
