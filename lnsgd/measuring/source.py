"""The batches that a network is measured on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from lnsgd import compat, rng
from lnsgd.measures.forward import Inputs, OutputsFunction, map_inputs, outputs_of, tensors_in
from lnsgd.measures.labels import example_classes, next_token_labels
from lnsgd.measuring.context import Context, Split
from lnsgd.measuring.loaders import SEED, LoaderBatches, number_of_classes
from lnsgd.measuring.subject import Subject

GivenData = Mapping[Split, Any] | Callable[[Split], Any]
"""Batches to measure on: a DataLoader for each split, or a function that returns it."""

BatchLayout = Callable[[Any], tuple[Inputs, Tensor]]
"""A function that takes a batch apart: ``batch -> (inputs, labels)``."""


class Batch(NamedTuple):
    """One process's share of a batch, as a `lnsgd.data.DeviceLoader` yields it.

    Process r of W holds the examples r, r + W, r + 2W, … of the global batch.

    Attributes:
        inputs: A tensor (B, …), or a mapping or tuple of such tensors, see `lnsgd.measures.Inputs`.
        labels: Shape (B, …), class indices (int64) or real targets.
        global_size: Number of examples of the batch on all processes together.
    """

    inputs: Any
    labels: Tensor
    global_size: int

    @classmethod
    def of(cls, batch: "Batch | Sequence[Tensor]", world_size: int) -> "Batch":
        """Return a `Batch` unchanged; make one of ``(inputs, labels)`` from a loader with equal shares per process."""
        return batch if isinstance(batch, cls) else cls(batch[0], batch[1], len(batch[1]) * world_size)


class MeasurementData:
    """This process's share of the data to measure on: batches (inputs, labels), which can be read repeatedly.

    Args:
        context: For the device, the precision and the share.
        subject: The network that is measured.
        batches: The batches of the share.
        num_classes: Number of classes C, if the data says it.
        noise_seed: Key of one fixed draw of the module's own label noise on the labels; by default the labels
            are clean.

    Raises:
        ValueError: label noise is asked for, and the module has none.
    """

    def __init__(
        self,
        context: Context,
        subject: Subject,
        batches: Iterable[Any],
        num_classes: int | None = None,
        noise_seed: int | None = None,
    ) -> None:
        self._context = context
        self._batches = batches
        self._num_classes = num_classes
        self._noise = getattr(subject.module, "label_noise", None)
        self._noise_seed = noise_seed
        if noise_seed is not None and self._noise is None:
            raise ValueError(
                f"noisy_labels: {type(subject.module).__name__} has no attribute `label_noise` to draw labels from; "
                "leave it out"
            )

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        device = self._context.device
        for number, batch in enumerate(self._batches):
            inputs, labels, examples = Batch.of(batch, self._context.share.world)
            moved = map_inputs(lambda tensor: tensor.to(device), inputs), labels.to(device)
            inputs, labels = self._context.precision.convert_input(moved)
            self._context.loaded.batches_read += 1
            yield inputs, self._targets(labels, number, examples)

    def _targets(self, labels: Tensor, batch: int, examples: int) -> Tensor:
        """Return the labels of this process, with noise if it is asked for.

        The noise is drawn for the whole batch, so that it does not depend on the number of processes.
        """
        if self._noise_seed is None or self._noise is None:
            return labels
        generator = rng.generator(self._noise_seed, "probes", batch)
        drawn = self._noise.draw((examples, *labels.shape[1:]), generator, self._num_classes)
        share = self._context.share
        mine = drawn[share.rank :: share.world].to(labels.device)
        return self._noise.apply(labels, mine, self._num_classes)


class Source:
    """Where the data comes from that a network is measured on, and how a batch of it is laid out.

    The batches of a split come from the first of these that exists: the user's ``data`` for the split; the method
    ``measurement_dataloader(split, examples)`` of the subject's data, which lnsgd's own data has; the DataLoader of the
    context. A DataLoader is read as ``lnsgd.measuring.loaders.LoaderBatches`` describes.

    Two sources with identical arguments are equal.

    Args:
        data: DataLoaders by split, or a function from a split to its DataLoader, which is called once.
        batch: Function from a batch of a DataLoader to inputs and labels (B, …); by default the first two elements of
            the batch, or ``labels`` (``label``) and all other tensors of a dictionary. Inputs are a tensor (B, …), a
            dictionary of tensors, which are the keyword arguments of ``forward``, or a tuple of tensors. A causal
            language model of transformers takes the tokens themselves as ``labels``; by default they are shifted, see
            `lnsgd.measures.next_token_labels`.
        outputs: How the network is called, ``outputs(network, inputs) -> (B, …)``, see `lnsgd.measures.outputs_of`.

    Raises:
        ValueError: an unknown split.

    Example:
        >>> from torch import nn
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from lnsgd.measuring import PlainContext, Subject
        >>> loader = DataLoader(TensorDataset(torch.ones(3, 2), torch.tensor([0, 1, 0])), batch_size=2)
        >>> batches = Source({"train": loader}).batches(Subject(nn.Linear(2, 2)), "train", None, PlainContext())
        >>> [labels.tolist() for _, labels in batches]
        [[0, 1], [0]]
    """

    def __init__(
        self,
        data: GivenData | None = None,
        batch: BatchLayout | None = None,
        outputs: OutputsFunction | None = None,
    ) -> None:
        if isinstance(data, Mapping) and not set(data) <= set(get_args(Split)):
            raise ValueError(f"data for {', '.join(map(repr, data))}; its keys must be train, val or test")
        self.data = data
        self.batch = batch
        self.outputs: OutputsFunction = outputs_of if outputs is None else outputs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and all(
            mine is its
            for mine, its in [(self.data, other.data), (self.batch, other.batch), (self.outputs, other.outputs)]
        )

    def __hash__(self) -> int:
        return hash((id(self.data), id(self.batch), id(self.outputs)))

    @property
    def identity(self) -> dict[str, str]:
        """The arguments that are given, in words that are the same in every process."""
        outputs = None if self.outputs is outputs_of else self.outputs
        named = {"data": self.data, "batch": self.batch, "outputs": outputs}
        return {name: _in_words(given) for name, given in named.items() if given is not None}

    def is_own(self, subject: Subject, split: Split) -> bool:
        """Return whether the subject's data itself says which batches to measure on."""
        return not self.gives(split) and hasattr(subject.data, "measurement_dataloader")

    def gives(self, split: Split) -> bool:
        """Return whether the user gives data for a split."""
        return callable(self.data) or (self.data is not None and split in self.data)

    def given(self, split: Split) -> Any:
        """Return the user's DataLoader of a split for which the user gives data."""
        with rng.preserved():
            return self.data(split) if callable(self.data) else self.data[split]  # type: ignore[index]

    def batches(
        self, subject: Subject, split: Split, examples: int | None, context: Context, noise_seed: int | None = None
    ) -> MeasurementData:
        """Return this process's share of a split.

        Args:
            subject: The network that is measured.
            split: Split of the data.
            examples: Size of the subset, fixed and keyed; the whole split if it is ``None``.
            context: Where the network is measured.
            noise_seed: See `MeasurementData`.

        Raises:
            ValueError: there is no data that can be read; on reading, the layout of the batches is unknown.
        """
        num_classes = getattr(subject.data, "num_classes", None)
        if self.is_own(subject, split):
            own = subject.data.measurement_dataloader(split, examples)
            return MeasurementData(context, subject, own, num_classes, noise_seed)
        found = context.loaded.batches(self, context, split, examples)
        num_classes = num_classes or number_of_classes(found.loader.dataset)
        return MeasurementData(context, subject, _LaidOut(context, found, self.batch, subject), num_classes, noise_seed)

    def num_classes(self, subject: Subject, split: Split, examples: int | None, context: Context) -> int:
        """Return the number of classes C that the data says it has, or else the largest label plus one.

        Args:
            subject: The network that is measured.
            split: Split of the data.
            examples: Size of the subset; the whole split if it is ``None``.
            context: Where the network is measured.

        Raises:
            ValueError: labels that are not class indices (B,).
        """
        known = getattr(subject.data, "num_classes", None)
        if known is not None:
            return known
        if self.is_own(subject, split):
            return _largest_label(self.batches(subject, split, examples, context), context) + 1
        loaded, key = context.loaded, (self, split, examples)
        known = number_of_classes(loaded.batches(self, context, split, examples).loader.dataset)
        if known is None and key not in loaded.classes:
            loaded.classes[key] = _largest_label(self.batches(subject, split, examples, context), context) + 1
        return known or loaded.classes[key]


class _LaidOut:
    """Batches of a DataLoader on the device, as `Batch`.

    Args:
        context: Where the network is measured.
        batches: Batches of the loader.
        layout: Function from a batch to inputs and labels; by default see `Source`.
        subject: The network that is measured.
    """

    def __init__(self, context: Context, batches: LoaderBatches, layout: BatchLayout | None, subject: Subject) -> None:
        self._context = context
        self._batches = batches
        self._layout = layout
        self._shifts = layout is None and compat.shifts_labels(subject.module)

    def __iter__(self) -> Iterator[Batch]:
        rank = self._context.share.rank
        for number, (batch, examples) in enumerate(self._batches):
            with rng.forked(SEED, "augmentation", number, rank), self._context.reading():
                moved = self._context.on_device(batch)
                pair = default_layout(moved, self._shifts) if self._layout is None else self._layout(moved)
            yield Batch(*_checked(pair), examples)


def default_layout(batch: Any, shifts: bool = False) -> tuple[Any, Any]:
    """Return inputs and labels: the first two elements of a sequence; the other tensors and ``labels`` of a mapping.

    Args:
        batch: A batch of a DataLoader.
        shifts: Whether the network, if it were given the labels of a mapping, would compare them with the outputs one
            token earlier.

    Raises:
        ValueError: the layout is another one.
    """
    if isinstance(batch, Mapping):
        key = next((key for key in ("labels", "label") if key in batch), None)
        if key is None:
            keys = ", ".join(map(repr, batch))
            raise _unknown_layout(f"a batch is a {type(batch).__name__} with {keys}, without 'labels' or 'label'")
        others = {name: value for name, value in batch.items() if name != key and isinstance(value, Tensor)}
        return others, next_token_labels(batch[key]) if shifts else batch[key]
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise _unknown_layout(f"a batch is a {type(batch).__name__}")
    return batch[0], batch[1]


def _checked(pair: Any) -> tuple[Inputs, Tensor]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise _unknown_layout(f"batch gives a {type(pair).__name__}, not a pair")
    inputs, labels = pair
    parts = _parts(inputs)
    if not (parts and all(isinstance(part, Tensor) for part in parts) and isinstance(labels, Tensor)):
        kinds = f"{_kind(inputs)} and {_kind(labels)}"
        raise _unknown_layout(f"inputs and labels are {kinds}, not tensors")
    inputs = map_inputs(lambda tensor: tensor, inputs)
    shapes = [tuple(tensor.shape) for tensor in tensors_in(inputs)]
    if () in shapes or labels.ndim == 0 or {shape[0] for shape in shapes} != {len(labels)}:
        raise _unknown_layout(f"inputs have shape {', '.join(map(str, shapes))}, labels {tuple(labels.shape)}")
    return inputs, labels if labels.is_floating_point() else labels.long()


def _parts(inputs: Any) -> list[Any]:
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple | list) else [inputs]


def _kind(value: Any) -> str:
    of = f" of {', '.join(type(part).__name__ for part in _parts(value))}"
    return type(value).__name__ + (of if isinstance(value, Mapping | tuple | list) else "")


def _unknown_layout(what: str) -> ValueError:
    return ValueError(
        f"{what}; say where a batch has inputs (B, …) and labels (B, …), such as "
        "batch=lambda batch: (batch['image'], batch['label'])"
    )


def _largest_label(data: MeasurementData, context: Context) -> int:
    """Return the largest class index on all processes, at least 1, since a single class is not a classification."""
    largest = torch.ones(1, dtype=torch.float64, device=context.device)
    for _, labels in data:
        largest = torch.cat([largest, example_classes(labels)[0].double()]).max(0, keepdim=True).values
    return int(context.largest(largest).item())


def _in_words(given: Any) -> str:
    if isinstance(given, Mapping):
        return ", ".join(sorted(given))
    name = getattr(given, "__qualname__", type(given).__qualname__)
    return f"{getattr(given, '__module__', type(given).__module__)}.{name}"
