"""The networks that are analyzed: checkpoints of runs or files of weights, and the data they are measured on."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn

from lnsgd import compat, rng
from lnsgd.analysis.weights import SHARD_INDICES, FileContent, fit_names, read_weights, unwrapped
from lnsgd.data.tensor_data import TensorData
from lnsgd.measures.forward import call_network
from lnsgd.measures.precision import at_least_single
from lnsgd.measuring import AVERAGED, TRAINED, Subject
from lnsgd.records.changes import read_changes
from lnsgd.replicas import (
    Networks,
    ReplicatedData,
    ReplicatedModule,
    data_of_network,
    networks_of,
    single_data,
)
from lnsgd.runs.folder import RunFolder
from lnsgd.training import read_run_config
from lnsgd.untrusted.checkpoint import content_hash

# Attribute of a DataModule of another project that has been set up.
_SET_UP = "_is_set_up_for_analysis"


@dataclass(frozen=True)
class Overrides:
    """Settings of an analysis that replace what the config of a run says.

    Attributes:
        model: The network, or a LightningModule; its own weights do not matter.
        loss: Per-example loss ``(outputs, labels) -> (B,)``.
        data: The data to measure on.
        init: File of the initial weights.
        batch_size: Number of examples in a forward pass.
        trusted: Packages whose classes the configs of runs may name, besides those that are harmless.
    """

    model: nn.Module | None = None
    loss: Callable[..., Any] | None = None
    data: LightningDataModule | None = None
    init: Path | None = None
    batch_size: int | None = None
    trusted: Sequence[str] = ()


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file.

    Attributes:
        path: The file.
        step: Number of optimizer steps taken; ``None`` if the file does not say it.
        epoch: Epoch in which they were taken; ``None`` if the file does not say it.
        digest: Hash of the weights, see `lnsgd.untrusted.checkpoint.content_hash`.
        which_weights: Which of the weights in the file these are, see `lnsgd.measuring.Measurement`.
    """

    path: Path
    step: int | None
    epoch: int | None
    digest: str
    which_weights: str = TRAINED


class InitialWeights(NamedTuple):
    """The initial weights θ₀.

    Attributes:
        of_network: Weights by the number of the network, each by its parameter names.
        digest: Hash of all of them; empty if they are not known.
    """

    of_network: dict[int, dict[str, Tensor]]
    digest: str


class PlainNetwork(LightningModule):
    """A network that is not a LightningModule, with its loss.

    Args:
        net: Any module, from inputs (B, …) to outputs (B, …).
        loss: Per-example loss ``(outputs, labels) -> (B,)``; measures that need a loss cannot be taken without it.
    """

    def __init__(self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.net = net
        self.loss = loss

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Return what the network returns; one tensor of outputs in at least single precision.

        Args:
            arguments: Inputs of the network, see `lnsgd.measures.Inputs`.
            options: Inputs by name.
        """
        inputs = options or (arguments[0] if len(arguments) == 1 else arguments)
        found = call_network(self.net, inputs)
        return at_least_single(found) if isinstance(found, Tensor) else found


@dataclass
class CheckpointSet:
    """Checkpoints of one network, or of the replicas of one run.

    Attributes:
        name: Name in tables and pictures.
        module: The network with its loss; or the replicas. It has the weights of the checkpoint loaded last.
        data: The data to measure on; ``None`` if the measures bring their own.
        init: File of the initial weights θ₀, if there is one.
        precision: Precision of the run's Trainer, as Lightning names it.
        checkpoints: The checkpoints in the order of their steps.
        notes: What was done to make the files fit the network.
        is_foreign: Whether the network and the data were named by the user, and not by the config of a run.
        has_warned: Whether it was said that the network errs on most examples.
    """

    name: str
    module: LightningModule
    data: LightningDataModule | None
    init: Path | None
    precision: Any = "32-true"
    checkpoints: list[Checkpoint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_foreign: bool = False
    has_warned: bool = False

    @property
    def preprocessing(self) -> str:
        """Description of the inputs of the network; empty if the measures bring their own data."""
        if self.data is None:
            return ""
        own = single_data(self.data)
        return getattr(own, "preprocessing", f"as {type(own).__name__} gives them")

    @property
    def networks(self) -> Networks:
        """The networks in the checkpoint loaded last."""
        return networks_of(self.module)

    @property
    def template(self) -> LightningModule:
        """The module whose structure all networks have."""
        return self.networks.template

    def add(self, paths: Iterable[Path]) -> None:
        """Read checkpoints and add them in the order of their steps; equal weights at one step are added once.

        Of a file with trained weights and averages of them, both are added, the trained ones last.

        Raises:
            ValueError: a file cannot be read or does not fit.
        """
        known = {(one.step, one.digest) for one in self.checkpoints}
        for path in paths:
            content = read_weights(path)
            step, epoch = content.number("global_step", "step"), content.number("epoch")
            if self.init is not None and path == self.init and step is None:
                step, epoch = 0, 0
            for which in content.weights:
                digest = content_hash(self._named(path, content, which))
                if (step, digest) not in known:
                    known.add((step, digest))
                    self.checkpoints.append(Checkpoint(path, step, epoch, digest, which))
            if AVERAGED in content.weights:
                also = " beside those that were trained; both are measured" if TRAINED in content.weights else ""
                self.notes.append(f"{path}: averaged weights{also}")
        if all(one.step is not None for one in self.checkpoints):
            self.checkpoints.sort(key=lambda one: one.step or 0)

    def load(self, checkpoint: Checkpoint) -> None:
        """Load the weights of a checkpoint into the module.

        Raises:
            ValueError: the file cannot be read, or no longer fits.
        """
        content = read_weights(checkpoint.path)
        self._weight_holder.load_state_dict(self._named(checkpoint.path, content, checkpoint.which_weights))
        self.networks.restore_frozen(content.record)

    def subjects(self) -> Iterator[Subject]:
        """Yield the networks of the loaded checkpoint that have not diverged; each is valid until the next one."""
        for number, network in self.networks:
            yield self._subject(number, network, data_of_network(self.data, number))

    def subject(self, number: int, data: Any) -> Subject:
        """Return one network of the loaded checkpoint, which stays valid, on some data."""
        return self._subject(number, self.networks.network(number), data)

    def _subject(self, number: int, network: LightningModule, data: Any) -> Subject:
        return Subject(network, data, number, self.initial_weights.of_network.get(number))

    @cached_property
    def initial_weights(self) -> InitialWeights:
        """The initial weights of every network; raises ValueError if their file cannot be read or does not fit."""
        if self.init is None:
            return InitialWeights({}, "")
        tensors = self._named(self.init, read_weights(self.init), None)
        before = "" if self._weight_holder is self.module else "net."
        named = {before + name: tensor for name, tensor in tensors.items()}
        return InitialWeights(self.networks.weights(named), content_hash(tensors))

    @property
    def _weight_holder(self) -> nn.Module:
        """The module whose ``state_dict`` the files have; files of a plain network do not know of its wrapper."""
        return self.module.net if isinstance(self.module, PlainNetwork) else self.module

    def _named(self, path: Path, content: FileContent, which: str | None) -> dict[str, Tensor]:
        """Name weights of a file as the module does, by default the trained ones; note what was done to the names."""
        kind = type(getattr(self.template, "net", self.template)).__name__
        given = content.trained if which is None else content.weights[which]
        tensors, note = fit_names(given, self._weight_holder.state_dict(), path, kind)
        for said in (f"{path}: {one}" for one in (content.note, note) if one):
            if said not in self.notes:
                self.notes.append(said)
        return tensors


def open_inputs(inputs: Sequence[Path], overrides: Overrides) -> list[CheckpointSet]:
    """Open every run once, with the checkpoints that are named or all that it kept; and files of weights together.

    Args:
        inputs: Folders of runs, checkpoints and files of weights.
        overrides: What replaces the configs of runs.

    Raises:
        ValueError: there is nothing to open, an input is not a run or a checkpoint, or it does not fit.
    """
    if not inputs:
        raise ValueError("nothing to analyze; give runs or checkpoints, such as runs/mnist")
    sets: dict[Path | None, CheckpointSet] = {}
    for path in inputs:
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder; give a run's folder or a checkpoint")
        run = _run_of(path)
        home = None if overrides.model is not None or run is None else run.path.resolve()
        if home not in sets:
            sets[home] = _open_files(path, overrides) if home is None or run is None else _open_run(run, overrides)
        sets[home].add(_checkpoint_files(path))
    for opened in sets.values():
        _ = opened.initial_weights  # a file that does not fit is refused before anything is measured
        if overrides.batch_size is not None and opened.data is not None:
            _set_batch_size(opened.data, overrides.batch_size)
    return list(sets.values())


def _run_of(path: Path) -> RunFolder | None:
    """Return the run that a folder is or that a file belongs to."""
    if path.is_dir():
        return RunFolder(path)
    run = RunFolder.of_checkpoint(path)
    beside = RunFolder(path.parent)
    return run or (beside if beside.config.exists() else None)


def _checkpoint_files(path: Path) -> list[Path]:
    """Return a file itself; of a run the initial weights and every checkpoint.

    Raises:
        ValueError: the run has neither.
    """
    if not path.is_dir():
        return [path]
    run = RunFolder(path)
    kept = sorted(run.checkpoints.glob("*.ckpt"), key=lambda file: (file.name.startswith("last"), file.name))
    found = [file for file in (run.init, *kept) if file.exists()] or next(
        filter(None, (sorted(path.glob(f"*{end}")) for end in SHARD_INDICES)), []
    )
    if not found:
        raise ValueError(f"{path} holds no checkpoints; give a run's folder, or checkpoint files with their --model")
    return found


def _open_run(run: RunFolder, overrides: Overrides) -> CheckpointSet:
    config = read_run_config(run, overrides.trusted)
    module: LightningModule = config.module
    data: LightningDataModule = overrides.data or config.data
    if overrides.loss is not None:
        module.loss = overrides.loss  # type: ignore[assignment]
    if config.replicas:
        module, data = ReplicatedModule(module, config.replicas), ReplicatedData(data, config.replicas)
    init = overrides.init or (run.init if run.init.exists() else None)
    changed = [f"{run.path}: options changed {change}; the last ones are used" for change in read_changes(run)]
    return CheckpointSet(run.path.resolve().name, module, data, init, config.precision, notes=changed)


def _open_files(path: Path, overrides: Overrides) -> CheckpointSet:
    if overrides.model is None:
        raise ValueError(
            f"{path}: there is no config.yaml of a run beside it, so its model is not known; give it, such as --model "
            "lnsgd.models.MLP --model.widths [784,600,10]"
        )
    if overrides.data is None:
        raise ValueError(
            f"{path}: with a model of your own the config of a run is not read; give the data too, such as --data "
            "lnsgd.data.MNIST"
        )
    model = unwrapped(copy.deepcopy(overrides.model))  # each checkpoint set has a network of its own
    if compat.is_lightning_module(model):
        module = model
        if overrides.loss is not None:
            module.loss = overrides.loss
    else:
        module = PlainNetwork(model, overrides.loss)
    return CheckpointSet(path.stem, module, overrides.data, overrides.init, is_foreign=True)


def set_up_data(sets: Iterable[CheckpointSet], device: torch.device) -> None:
    """Prepare and set up the data of checkpoint sets as a Trainer does, each data once.

    The splits that a DataModule draws from the global generators are keyed, so that every analysis draws the same ones.
    Data of another project is set up once for all analyses, because it may draw from a generator of its own.

    Args:
        sets: The checkpoint sets.
        device: Device of the networks, on which lnsgd's own data is kept.

    Raises:
        OSError: data is missing.
    """
    for data in {id(one.data): one.data for one in sets if one.data is not None}.values():
        own = single_data(data)
        with rng.forked(0, "data"):
            if isinstance(own, TensorData):  # which sets up all splits at once
                data.prepare_data()
                own.device = device
                data.setup("fit")
            elif not hasattr(data, _SET_UP):
                data.prepare_data()
                data.setup("fit")
                data.setup("test")
                setattr(data, _SET_UP, True)


def _set_batch_size(data: Any, examples: int) -> None:
    """Set how many examples go through the network at a time.

    Raises:
        ValueError: fewer than one, or data that has no such setting.
    """
    if examples < 1:
        raise ValueError(f"batch size = {examples}; give at least 1")
    single = single_data(data)
    name = next((name for name in ("eval_batch_size", "batch_size") if hasattr(single, name)), None)
    if name is None:
        raise ValueError(
            f"batch size = {examples}: {type(single).__name__} has no attribute batch_size; set it by its own arguments"
        )
    setattr(single, name, examples)
