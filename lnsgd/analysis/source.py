"""What is analyzed: networks of one structure, with the data that they are measured on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor

from lnsgd.analysis.plain import PlainNetwork
from lnsgd.analysis.weights import Saved, fitted, read
from lnsgd.callbacks.measure import network, subjects
from lnsgd.modules import ReplicatedModule
from lnsgd.modules.replicated import Subject
from lnsgd.replicas import Replica
from lnsgd.untrusted.checkpoint import content_hash

# In the files of a replicated run each tensor is stacked, and named with this before.
_STACK = "stack."


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file.

    Attributes:
        path: The file.
        step: Optimizer steps taken, where that is known.
        epoch: The epoch they were taken in, where that is known.
        digest: Of the weights, see `content_hash`.
    """

    path: Path
    step: int | None
    epoch: int | None
    digest: str


@dataclass
class Source:
    """Checkpoints of one network, or of the replicas of one run.

    Attributes:
        name: For tables and pictures.
        module: The network with its loss; or the replicas.
        data: What is measured on; ``None`` where the callbacks bring their own.
        checkpoints: In the order of their steps.
        init: File of the initial weights θ₀, where there is one.
        precision: The Trainer's.
        notes: What was done to make the files fit.
    """

    name: str
    module: LightningModule
    data: LightningDataModule | None
    checkpoints: list[Checkpoint]
    init: Path | None
    precision: Any = "32-true"
    notes: list[str] = field(default_factory=list)

    @property
    def replicas(self) -> list[Replica]:
        """In what they differ; none of an ordinary run."""
        return self.module.replicas if isinstance(self.module, ReplicatedModule) else []

    @property
    def structure(self) -> LightningModule:
        """The module whose structure all networks here have."""
        return network(self.module)

    @property
    def seeds(self) -> list[int]:
        """Seed by replica; 0 of an ordinary run."""
        return [replica.seed for replica in self.replicas] or [0]

    def add(self, paths: Iterable[Path]) -> None:
        """Adds checkpoints that are read and fit, in the order of their steps; the same weights once a step.

        Raises:
            ValueError: a file that cannot be read or does not fit.
        """
        known = {(one.step, one.digest) for one in self.checkpoints}
        for path in paths:
            saved = read(path)
            tensors, note = fitted(saved.tensors, self._wanted(), path, self._name_of_model())
            if note and (said := f"{path}: {note}") not in self.notes:
                self.notes.append(said)
            step, epoch = saved.number("global_step", "step"), saved.number("epoch")
            if self.init is not None and path == self.init and step is None:
                step, epoch = 0, 0
            digest = content_hash(tensors)
            if (step, digest) not in known:
                known.add((step, digest))
                self.checkpoints.append(Checkpoint(path, step, epoch, digest))
        if all(one.step is not None for one in self.checkpoints):
            self.checkpoints.sort(key=lambda one: one.step or 0)

    def load(self, checkpoint: Checkpoint) -> None:
        """Gives the module the weights of a checkpoint.

        Raises:
            ValueError: the file cannot be read, or does not fit any more.
        """
        saved = read(checkpoint.path)
        tensors, _ = fitted(saved.tensors, self._wanted(), checkpoint.path, self._name_of_model())
        self.holder.load_state_dict(tensors)
        if isinstance(self.module, ReplicatedModule):
            self._take_frozen(self.module, saved)

    @property
    def holder(self) -> Any:
        """The module whose ``state_dict`` the files have: a plain network's is that of the network."""
        return self.module.net if isinstance(self.module, PlainNetwork) else self.module

    def _take_frozen(self, module: ReplicatedModule, saved: Saved) -> None:
        """Which replicas had diverged by then."""
        if "replicas" in saved.record:
            module.on_load_checkpoint(saved.record)
        else:
            module.on_fit_start()

    def subjects(self, trainer: Trainer) -> Iterator[Subject]:
        """The networks as they were loaded; each is valid until the next is asked for."""
        yield from subjects(trainer, self.module)

    def initial_weights(self) -> tuple[dict[int, dict[str, Tensor]], str] | None:
        """θ₀ by replica, named as the module's parameters, and its digest; ``None`` where there is no file of it.

        Raises:
            ValueError: the file cannot be read or does not fit.
        """
        if self.init is None:
            return None
        tensors, _ = fitted(read(self.init).tensors, self._wanted(), self.init, self._name_of_model())
        digest = content_hash(tensors)
        if not self.replicas:
            before = "" if self.holder is self.module else "net."
            return {0: {before + name: tensor for name, tensor in tensors.items()}}, digest
        names = [name for name, _ in self.structure.named_parameters()]
        each = range(len(self.replicas))
        return {r: {name: tensors[_STACK + name][r] for name in names} for r in each}, digest

    def _wanted(self) -> dict[str, Tensor]:
        return self.holder.state_dict()

    def _name_of_model(self) -> str:
        net = getattr(self.structure, "net", self.structure)
        return type(net).__name__
