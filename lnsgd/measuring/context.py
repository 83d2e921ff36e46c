"""Where measuring happens: device, precision, processes, and the loaders that are at hand."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lnsgd.measures import Share
from lnsgd.measuring.loaders import LoaderBatches, unreadable

if TYPE_CHECKING:
    from lnsgd.measuring.measurer import Measurer
    from lnsgd.measuring.source import Source

T = TypeVar("T")
Split = Literal["train", "val", "test"]
"""A split of the data."""


_FORMATS = {"16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32, "64": torch.float64}


class Precision(Protocol):
    """The number format of a forward pass; Lightning's precision plugins fit."""

    def forward_context(self) -> AbstractContextManager[Any]:
        """Return the context in which the network is called, such as autocast."""

    def convert_input(self, data: Any) -> Any:
        """Convert the floating-point tensors of a batch."""


class PlainPrecision:
    """The number format of a forward pass, by the names that Lightning gives them.

    Args:
        name: ``32-true``, ``64-true``, ``16-true``, ``bf16-true`` (weights and inputs have the format) or ``16-mixed``,
            ``bf16-mixed`` (weights in single precision under autocast). Call `convert_module` on the network before.
        device: Type of the device, for autocast.

    Raises:
        ValueError: another name.
    """

    def __init__(self, name: str = "32-true", device: str = "cpu") -> None:
        bits, _, kind = name.partition("-")
        if bits not in _FORMATS or kind not in ("true", "mixed") or (kind == "mixed" and bits in ("32", "64")):
            raise ValueError(
                f"precision = {name!r}; choose one of 32-true, 64-true, 16-true, bf16-true, 16-mixed, bf16-mixed"
            )
        self.name = name
        self.device = device
        self._mixed = _FORMATS[bits] if kind == "mixed" else None
        self.dtype = torch.float32 if self._mixed else _FORMATS[bits]

    def convert_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Convert the floating-point weights and buffers of a network in place."""
        return module.to(self.dtype)

    def forward_context(self) -> AbstractContextManager[Any]:
        """Return autocast for a mixed format; else a context that does nothing."""
        return torch.autocast(self.device, self._mixed) if self._mixed else nullcontext()

    def convert_input(self, data: Any) -> Any:
        """Convert the floating-point tensors of a batch."""
        return apply_to_collection(data, Tensor, lambda t: t.to(self.dtype) if t.is_floating_point() else t)


class Context(ABC):
    """The surroundings in which a measurer works.

    Attributes:
        share: Which part of the data this process measures, and how sums go over all processes.
        device: Device of the network.
        precision: Number format of the forward passes.
        together: All measurers that are taken of the same networks, each with its source. Measurers that look at
            the same activation sites on the same data share one forward pass.
        loaded: DataLoaders that were opened so far.
        announced: What was announced of the measurers so far, so that it is announced once.
        on_progress: Is told which fraction of a long measurement is done.
    """

    share: Share
    device: torch.device
    precision: Precision
    together: Sequence[tuple[Measurer, Source]]
    loaded: LoadedData
    announced: set[str]
    on_progress: Callable[[float], None] | None = None

    @abstractmethod
    def largest(self, values: Tensor) -> Tensor:
        """Return the elementwise maximum of a tensor over all processes."""

    @abstractmethod
    def loader(self, split: Split) -> Any:
        """Return the DataLoader of a split where the user gives none and the data is not lnsgd's own.

        Raises:
            ValueError: there is none.
        """

    @abstractmethod
    def on_device(self, batch: Any) -> Any:
        """Return a batch of a DataLoader on the device, as the network gets it in validation."""

    @abstractmethod
    def log_message(self, message: str) -> None:
        """Log a message for the user, once for all processes."""

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which a batch of a DataLoader is moved and taken apart; by default it does nothing."""
        return nullcontext()


class PlainContext(Context):
    """A context without a Trainer: one process, or those of ``torch.distributed`` if it is initialized.

    Args:
        loaders: DataLoaders by split.
        device: Device of the network.
        precision: Number format of the forward passes, see `PlainPrecision`.
        together: All measurers that are taken, each with its source.
    """

    def __init__(
        self,
        loaders: Mapping[Split, Any] | None = None,
        device: torch.device | str = "cpu",
        precision: str = "32-true",
        together: Sequence[tuple[Measurer, Source]] = (),
    ) -> None:
        self.loaders = loaders or {}
        self.device = torch.device(device)
        self.precision = PlainPrecision(precision, self.device.type)
        self.together = together
        self.loaded = LoadedData()
        self.announced = set()
        self._distributed = dist.is_available() and dist.is_initialized()
        if self._distributed:
            self.share = Share(dist.get_rank(), dist.get_world_size(), lambda sums: _reduced(sums, dist.ReduceOp.SUM))
        else:
            self.share = Share()

    def largest(self, values: Tensor) -> Tensor:
        """Return the elementwise maximum of a tensor over all processes."""
        return _reduced(values, dist.ReduceOp.MAX) if self._distributed else values

    def loader(self, split: Split) -> Any:
        """Return the given DataLoader of a split."""
        if split not in self.loaders:
            raise unreadable(split, "is missing")
        return self.loaders[split]

    def on_device(self, batch: Any) -> Any:
        """Return a batch on the device in the number format."""
        return apply_to_collection(self.precision.convert_input(batch), Tensor, lambda tensor: tensor.to(self.device))

    def log_message(self, message: str) -> None:
        """Log a message at level INFO of the logger ``lnsgd.measuring``, on the first process."""
        if self.share.rank == 0:
            logging.getLogger("lnsgd.measuring").info(message)


def _reduced(values: Tensor, operation: Any) -> Tensor:
    total = values.clone()
    dist.all_reduce(total, operation)
    return total


class LoadedData:
    """DataLoaders that the measurers of one context have opened, each once.

    Attributes:
        classes: Numbers of classes that were found by reading the labels.
        checked: What was found to be measurable, by network; see ``lnsgd.measuring.guard``.
        batches_read: Number of batches that were read for measuring so far, which tells how far a measurement is.
    """

    def __init__(self) -> None:
        self.checked: WeakKeyDictionary[nn.Module, dict[Hashable, Any]] = WeakKeyDictionary()
        self.batches_read = 0
        self.classes: dict[tuple[Source, Split, int | None], int] = {}
        self._given: dict[tuple[Source, Split], Any] = {}
        self._batches: dict[tuple[Source, Split, int | None], LoaderBatches] = {}

    def batches(self, source: Source, context: Context, split: Split, examples: int | None) -> LoaderBatches:
        """Return the batches of a split, read from the user's loader or else from the context's.

        Raises:
            ValueError: there is no loader, or it cannot be read by index.
        """
        loader, key = self._loader(source, context, split), (source, split, examples)
        if key not in self._batches or self._batches[key].loader is not loader:
            share = context.share
            self._batches[key] = LoaderBatches(loader, split, examples, share.rank, share.world)
        return self._batches[key]

    def _loader(self, source: Source, context: Context, split: Split) -> Any:
        key = source, split
        if key not in self._given:
            self._given[key] = source.given(split) if source.gives(split) else None
        found = self._given[key]
        return context.loader(split) if found is None else found
