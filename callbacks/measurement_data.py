"""The data that callbacks measure on: lnsgd's own, a Trainer's DataLoaders, or what the user gives."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.trainer.states import RunningStage
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor

from lnsgd import rng
from lnsgd.callbacks.loader_batches import SEED, LoaderBatches, number_of_classes, refusal
from lnsgd.data.batch import Batch
from lnsgd.modules.replicated import Subject

Split = Literal["train", "val", "test"]
GivenData = Mapping[Split, Any] | Callable[[Split], Any]
BatchLayout = Callable[[Any], tuple[Tensor, Tensor]]


class MeasurementData:
    """This process's share of the data to measure on: batches (inputs, labels) on its device, as often as one likes.

    Args:
        trainer: For the precision and the share.
        subject: The network that is measured.
        batches: The share.
        num_classes: C, where the data says it.
        noise_seed: Key of a draw of the module's own label noise on the labels, always the same one; by default
            the labels are clean.

    Raises:
        ValueError: label noise, and a module that has none.
    """

    def __init__(
        self,
        trainer: Trainer,
        subject: Subject,
        batches: Iterable[Any],
        num_classes: int | None = None,
        noise_seed: int | None = None,
    ) -> None:
        self._trainer = trainer
        self._batches = batches
        self._num_classes = num_classes
        self._noise = getattr(subject.module, "label_noise", None)
        self._noise_seed = noise_seed
        if noise_seed is not None and self._noise is None:
            raise ValueError(
                f"noisy_labels: {type(subject.module).__name__} has no attribute `label_noise` to draw labels from; "
                "leave it out"
            )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(self._batches):
            inputs, labels, examples = Batch.of(batch, self._trainer.world_size)
            inputs, labels = self._trainer.precision_plugin.convert_input((inputs, labels))
            yield inputs, self._targets(labels, number, examples)

    def _targets(self, labels: Tensor, batch: int, examples: int) -> Tensor:
        """Of this process's share of a batch. Drawn for the whole batch: the noise of one process is that of two."""
        if self._noise_seed is None or self._noise is None:
            return labels
        generator = rng.generator(self._noise_seed, "probes", batch)
        drawn = self._noise.draw((examples, *labels.shape[1:]), generator, self._num_classes)
        mine = drawn[self._trainer.global_rank :: self._trainer.world_size].to(labels.device)
        return self._noise.apply(labels, mine, self._num_classes)


class DataSource:
    """Where a callback finds its data, and how a batch of it is laid out.

    In this order: what the user gives for a split; the DataModule's ``measurement_dataloader(split, examples)``, which
    lnsgd's own have; the DataLoader of the Trainer, read as `LoaderBatches` says. Batches of DataLoaders go through the
    module's or DataModule's hooks of batch transfer, ``trainer.validating`` being true and their random numbers keyed.

    Two sources with the very same arguments are equal.

    Args:
        data: DataLoaders by split; or a function from a split to one, called once a run when it is first measured.
        batch: From a batch of a DataLoader to inputs (B, …) and labels (B, …); by default its first two elements.

    Raises:
        ValueError: an unknown split.
    """

    def __init__(self, data: GivenData | None = None, batch: BatchLayout | None = None) -> None:
        if isinstance(data, Mapping) and not set(data) <= set(get_args(Split)):
            raise ValueError(f"data for {', '.join(map(repr, data))}; its keys must be train, val or test")
        self.data = data
        self.batch = batch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataSource) and self.data is other.data and self.batch is other.batch

    def __hash__(self) -> int:
        return hash((id(self.data), id(self.batch)))

    @property
    def identity(self) -> dict[str, str]:
        """What is given, in words that are the same in every process."""
        named = {"data": self.data, "batch": self.batch}
        return {name: _in_words(given) for name, given in named.items() if given is not None}

    def is_own(self, subject: Subject, split: Split) -> bool:
        """Whether the DataModule is asked what to measure on."""
        return not self._gives(split) and hasattr(subject.data, "measurement_dataloader")

    def _gives(self, split: Split) -> bool:
        return callable(self.data) or (self.data is not None and split in self.data)

    def given(self, split: Split) -> Any:
        """The user's DataLoader; ``None`` where there is none."""
        if not self._gives(split):
            return None
        with rng.preserved():
            return self.data(split) if callable(self.data) else self.data[split]  # type: ignore[index]

    def batches(
        self, trainer: Trainer, subject: Subject, split: Split, examples: int | None, noise_seed: int | None = None
    ) -> MeasurementData:
        """This process's share of a split.

        Args:
            trainer: In which the network is trained.
            subject: The network.
            split: Of its data.
            examples: Size of the subset, fixed and keyed; all where it is ``None``.
            noise_seed: See `MeasurementData`.

        Raises:
            ValueError: no data that could be read; on reading, batches of another layout.
        """
        num_classes = getattr(subject.data, "num_classes", None)
        if self.is_own(subject, split):
            own: Any = subject.data
            return MeasurementData(
                trainer, subject, own.measurement_dataloader(split, examples), num_classes, noise_seed
            )
        found = _opened(trainer).batches(self, trainer, split, examples)
        num_classes = num_classes or number_of_classes(found.loader.dataset)
        return MeasurementData(trainer, subject, _Moved(trainer, found, self.batch), num_classes, noise_seed)

    def num_classes(self, trainer: Trainer, subject: Subject, split: Split, examples: int | None) -> int:
        """Number of classes C: as the DataModule or the data set says, else the largest label read plus one.

        Raises:
            ValueError: labels that are no class indices (B,).
        """
        known = getattr(subject.data, "num_classes", None)
        if known is not None:
            return known
        if self.is_own(subject, split):
            return _largest_label(trainer, self.batches(trainer, subject, split, examples)) + 1
        opened = _opened(trainer)
        known = number_of_classes(opened.batches(self, trainer, split, examples).loader.dataset)
        key = self, split, examples
        if known is None and key not in opened.classes:
            opened.classes[key] = _largest_label(trainer, self.batches(trainer, subject, split, examples)) + 1
        return known or opened.classes[key]


def forget(trainer: Trainer) -> None:
    """Lets go of the data that was read for a Trainer's callbacks."""
    _of_trainers.pop(trainer, None)


class _Opened:
    """The DataLoaders that the callbacks of one Trainer read from, so that each is opened once."""

    def __init__(self) -> None:
        self._loaders: dict[tuple[DataSource, Split], Any] = {}
        self._batches: dict[tuple[DataSource, Split, int | None], LoaderBatches] = {}
        self.classes: dict[tuple[DataSource, Split, int | None], int] = {}

    def batches(self, source: DataSource, trainer: Trainer, split: Split, examples: int | None) -> LoaderBatches:
        """Those of a split."""
        loader, key = self._loader(source, trainer, split), (source, split, examples)
        if key not in self._batches or self._batches[key].loader is not loader:
            self._batches[key] = LoaderBatches(loader, split, examples, trainer.global_rank, trainer.world_size)
        return self._batches[key]

    def _loader(self, source: DataSource, trainer: Trainer, split: Split) -> Any:
        key = source, split
        if key not in self._loaders:
            found = source.given(split)
            if found is None:
                attached = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}.get(split)
                if attached is not None:
                    return _only(attached, split)  # not for good: Lightning may load it anew
                found = _only(_requested(trainer, split), split)
            self._loaders[key] = found
        return self._loaders[key]


_of_trainers: WeakKeyDictionary[Trainer, _Opened] = WeakKeyDictionary()


def _opened(trainer: Trainer) -> _Opened:
    return _of_trainers.setdefault(trainer, _Opened())


def _requested(trainer: Trainer, split: Split) -> Any:
    """The loader that Lightning would ask for, but has not asked for yet."""
    fit: Any = trainer.fit_loop
    loops = {"train": fit, "val": fit.epoch_loop.val_loop, "test": trainer.test_loop}
    source = loops[split]._data_source
    if source.instance is None or not source.is_defined():
        raise refusal(split, "is not known to the Trainer", "measure other splits, or ")
    try:
        with rng.preserved():
            return source.dataloader()
    except Exception as error:  # code of the user's that nobody calls while training, such as before setup("test")
        raise refusal(split, f"is not there while training ({type(error).__name__}: {error})") from error


def _only(loaders: Any, split: Split) -> Any:
    """The one loader of a split."""
    found = loaders.iterables if isinstance(loaders, CombinedLoader) else loaders
    if split != "train" and isinstance(found, list | tuple) and len(found) == 1:
        return found[0]
    if isinstance(found, list | tuple | dict):
        raise refusal(split, f"is a {type(found).__name__} of {len(found)} loaders, of which none is the one")
    return found


class _Moved:
    """Batches of a DataLoader on the device of the run, as the network gets them in validation.

    Args:
        trainer: Whose run.
        batches: Those of the loader.
        layout: From a batch to inputs and labels; by default its first two elements.
    """

    def __init__(self, trainer: Trainer, batches: LoaderBatches, layout: BatchLayout | None) -> None:
        self._trainer = trainer
        self._batches = batches
        self._layout = layout

    def __iter__(self) -> Iterator[Batch]:
        for number, (batch, examples) in enumerate(self._batches):
            with rng.forked(SEED, "augmentation", number, self._trainer.global_rank), _validating(self._trainer):
                moved = self._on_device(batch)
                pair = _first_two(moved) if self._layout is None else self._layout(moved)
            yield Batch(*_checked(pair), examples)

    def _on_device(self, batch: Any) -> Any:
        trainer = self._trainer
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


@contextmanager
def _validating(trainer: Trainer) -> Iterator[None]:
    """So that hooks which augment ``if self.trainer.training`` do not."""
    stage = trainer.state.stage
    trainer.state.stage = RunningStage.VALIDATING
    try:
        yield
    finally:
        trainer.state.stage = stage


def _first_two(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        keys = f" of {', '.join(map(repr, batch))}" if isinstance(batch, Mapping) else ""
        raise _unknown_layout(f"a batch is a {type(batch).__name__}{keys}")
    return batch[0], batch[1]


def _checked(pair: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise _unknown_layout(f"batch gives a {type(pair).__name__}, no pair")
    inputs, labels = pair
    if not (isinstance(inputs, Tensor) and isinstance(labels, Tensor)):
        kinds = f"{type(inputs).__name__} and {type(labels).__name__}"
        raise _unknown_layout(f"inputs and labels are {kinds}, not two tensors")
    if inputs.ndim == 0 or labels.ndim == 0 or len(inputs) != len(labels):
        raise _unknown_layout(f"inputs have shape {tuple(inputs.shape)}, labels {tuple(labels.shape)}")
    return inputs, labels if labels.is_floating_point() else labels.long()


def _unknown_layout(what: str) -> ValueError:
    return ValueError(
        f"{what}; say where a batch has inputs (B, …) and labels (B, …), such as "
        "batch=lambda batch: (batch['image'], batch['label'])"
    )


def _largest_label(trainer: Trainer, data: MeasurementData) -> int:
    """Over all processes; at least one, since one class is none."""
    largest = torch.ones(1, dtype=torch.float64, device=trainer.strategy.root_device)
    for _, labels in data:
        if labels.is_floating_point() or labels.ndim != 1:
            raise ValueError(
                f"labels of shape {tuple(labels.shape)}, {labels.dtype}, are no classes; classes must be indices (B,)"
            )
        largest = torch.cat([largest, labels.double()]).max(0, keepdim=True).values
    return int(trainer.strategy.reduce(largest, reduce_op="max").item())


def _in_words(given: Any) -> str:
    if isinstance(given, Mapping):
        return ", ".join(sorted(given))
    name = getattr(given, "__qualname__", type(given).__qualname__)
    return f"{getattr(given, '__module__', type(given).__module__)}.{name}"
