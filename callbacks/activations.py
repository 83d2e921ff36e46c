"""What the callbacks that look at activation sites share: how often each unit fires."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.model_helpers import is_overridden

from lnsgd.callbacks.data_callback import DataCallback
from lnsgd.callbacks.firing_passes import Ride, Watch, passes_of, validates_all
from lnsgd.callbacks.measure import network, subjects
from lnsgd.callbacks.measurement_data import DataSource, Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.data.batch import Batch
from lnsgd.measures import Firings, activation_sites
from lnsgd.modules.replicated import ReplicatedModule, Subject


class ActivationCallback(DataCallback):
    """Measures each activation site on each split, by how often its units fire.

    A unit is active on an example where its pre-activation, what goes into the activation, is > 0. For ReLU that is
    where it gives anything; GELU, SiLU and other smooth activations give something small elsewhere too. All dimensions
    but the first are units: channels × height × width of a convolution, tokens × features of a transformer, whose
    examples are images and not tokens. A module that is called k times in a forward pass, such as the one ReLU of a
    block of torchvision's ResNets, is k sites: ``layer1.0.relu#1`` to ``#k``, in the order of the calls. Activations
    called as functions cannot be seen.

    Callbacks that look at the same sites on the same data share one forward pass. At the end of an epoch the
    validation split of lnsgd's own data costs none: it is looked at in the validation that runs anyway.

    Args:
        splits: On which data.
        layers: Shell-style patterns of module names; by default all activation modules.
        examples: On this many examples of the training split, a fixed keyed subset; ``null`` for all. The other
            splits are always taken whole, as validation does.
        options: Data, layout of batches and schedule, see `DataCallback`.

    Raises:
        ValueError: on setup, no activation module, or a pattern that matches none; on measuring, sites that are not
            called, or whose inputs are not one row for each example.
    """

    def __init__(
        self,
        splits: Sequence[Split] = ("train", "val"),
        layers: Sequence[str] | None = None,
        examples: int | None = 2_000,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.splits = splits
        self.layers = layers
        self.examples = examples
        self._ride: Ride | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this callback another one than a second of its class."""
        return {**super().identity, "splits": self.splits, "layers": self.layers, "examples": self.examples}

    def classes_needed(self, trainer: Trainer, subject: Subject) -> int:
        """Number of classes that must be told apart; 1 for none."""
        return 1

    @abstractmethod
    def measurements(self, firings: Firings, split: Split, layer: str) -> list[Measurement]:
        """The numbers of one site."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that there are activation sites."""
        super().setup(trainer, pl_module, stage)
        if not is_overridden("configure_model", network(pl_module)):  # else there are no modules yet
            activation_sites(network(pl_module), self.layers)
        passes_of(trainer).forget()

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """The numbers of each site on each split."""
        return [
            measurement
            for split in self.splits
            for layer, firings in self.firings(trainer, subject, split).items()
            for measurement in _sound(self.measurements(firings, split, layer), firings)
        ]

    def firings(self, trainer: Trainer, subject: Subject, split: Split) -> Mapping[str, Firings]:
        """Firings of each site on a split in eval mode, summed over processes."""
        return passes_of(trainer).firings(trainer, subject, self._watch(trainer, subject, split))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the validation pass where it is followed by a measurement."""
        due = self.due_after_epoch(trainer) and "val" in self.splits and not isinstance(pl_module, ReplicatedModule)
        if due and validates_all(trainer):
            (subject,) = subjects(trainer, pl_module)
            if self.source.is_own(subject, "val"):  # other loaders may shuffle, repeat or leave out examples
                self._ride = passes_of(trainer).ride(pl_module, self._watch(trainer, subject, "val"))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Looks."""
        if self._ride:
            self._ride.look(Batch.of(batch, trainer.world_size).labels)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Looks away."""
        if self._ride:
            self._ride.look_away()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what was seen."""
        if self._ride:
            passes_of(trainer).arrive(trainer, self._ride)
            self._ride = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Looks away, too."""
        if self._ride:
            self._ride.look_away()
            self._ride = None
        super().on_exception(trainer, pl_module, exception)

    def _watch(self, trainer: Trainer, subject: Subject, split: Split) -> Watch:
        """What is to be looked at, with the classes that any callback needs which looks at the same."""
        mine = self._looks_at(split)
        others = [c for c in trainer.callbacks if isinstance(c, ActivationCallback)]  # type: ignore[attr-defined]
        company = [self, *(other for other in others if split in other.splits and other._looks_at(split) == mine)]
        classes = max(callback.classes_needed(trainer, subject) for callback in company)
        return Watch(split, self.examples_of(split), mine[1], mine[2], classes)

    def examples_of(self, split: Split) -> int | None:
        """Size of the subset of a split that is looked at."""
        return self.examples if split == "train" else None

    def _looks_at(self, split: Split) -> tuple[int | None, tuple[str, ...] | None, DataSource]:
        return self.examples_of(split), None if self.layers is None else tuple(self.layers), self.source


def _sound(measured: list[Measurement], firings: Firings) -> list[Measurement]:
    """NaN in place of numbers that follow from pre-activations which are NaN or infinite."""
    return [m._replace(value=math.nan, stderr=math.nan) for m in measured] if firings.nonfinite else measured
