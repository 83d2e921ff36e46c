"""Objects that take a measure of a network, whoever trains it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lnsgd import compat
from lnsgd.measures.evaluation import evaluation_mode, left_alone
from lnsgd.measuring.context import Context, Split
from lnsgd.measuring.guard import check_measurable
from lnsgd.measuring.measurement import Distribution, Measurement, Picture
from lnsgd.measuring.source import Source
from lnsgd.measuring.subject import Subject

Need = Literal["outputs", "loss", "gradients", "products"]
"""A need of a measurer: one tensor of outputs, a loss of every example, gradients of it, or Hessian products."""


class Measurer(ABC):
    """Base of the measurers. A subclass defines `measure`; `take` is what others call.

    A measurer has settings and nothing else: no schedule, no Trainer, no state. Its settings are public attributes of
    the same names as its arguments. A callback of lnsgd is a measurer with a schedule, by inheritance from both.

    Attributes:
        needs: What it needs of network and loss on its splits, see `Need`; without any, a forward pass is enough.
        headline: Name of the one measure that the progress bar shows, and a short name for it there.
        identified_by: Names of the settings that tell two measurers of one class apart.
        needs_init: Whether ``Subject.init``, the initial weights θ₀, must be given.
        is_drawn: Whether the picture is the main result, so that it is drawn wherever the measure is taken.
    """

    headline: ClassVar[tuple[str, str]]
    identified_by: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[frozenset[Need]] = frozenset()
    needs_init: ClassVar[bool] = False
    is_drawn: ClassVar[bool] = False

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that tell two measurers of one class apart; a loss is represented by the name of its class."""
        settings = {name: getattr(self, name) for name in self.identified_by}
        return {name: type(value).__name__ if name == "loss" else value for name, value in settings.items()}

    @property
    def measured_splits(self) -> Sequence[Split]:
        """The splits of the data that are measured on; empty for a measurer that needs the weights only."""
        return ()

    def examples_of(self, split: Split) -> int | None:
        """Size of the subset of a split that is measured on; ``None`` for the whole split."""
        return getattr(self, "examples", None)

    def check(self, network: nn.Module) -> None:
        """Check before training that a network can be measured, as far as its structure tells.

        Raises:
            ValueError: it cannot be measured.
        """
        if not self.measured_splits or compat.is_torchscript(network):
            return
        if type(network).forward is nn.Module.forward:
            raise ValueError(
                f"{type(network).__name__} has no `forward`; measures need one from inputs (B, …) to outputs (B, …)"
            )

    @contextmanager
    def _protected(self, subject: Subject) -> Iterator[None]:
        """Let what is computed within change nothing of the network: it is in eval mode, with gradients off."""
        with torch.no_grad(), left_alone(subject.module), evaluation_mode(subject.module):
            try:
                yield
            except StopIteration as error:  # Lightning would take it for the end of the epoch
                raise ValueError(
                    f"{type(self).__name__} raises StopIteration while it measures, as next() does at the end of an "
                    "iterator; give next() a default, or check that there is data"
                ) from error

    def take(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure one network by `measure`, in eval mode, with gradients off, and leave it as it was.

        Whoever measures calls this function, on all processes. Before the first measure, a few examples show whether
        network, data and loss can be measured (``lnsgd.measuring.guard``).

        Args:
            subject: The network.
            source: Where the data comes from.
            context: Where the network is measured.

        Raises:
            ValueError: the network or the data is not of the kind that this measure is for.
        """
        with self._protected(subject):
            check_measurable(self, subject, source, context)
            return self.measure(subject, source, context)

    def take_tensors(self, subject: Subject, source: Source, context: Context) -> dict[str, Tensor]:
        """Return `tensors` under the conditions of `take`."""
        with self._protected(subject):
            check_measurable(self, subject, source, context)
            return self.tensors(subject, source, context)

    def take_distributions(self, subject: Subject, source: Source, context: Context) -> list[Distribution]:
        """Return `distributions` under the conditions of `take`."""
        with self._protected(subject):
            return self.distributions(subject, source, context)

    @abstractmethod
    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure one network; a subclass defines this, `take` calls it. It returns the same numbers on all processes.

        The network is in eval mode, and gradients are off; a measure that differentiates uses ``torch.enable_grad()``.

        Args:
            subject: The network.
            source: Where the data comes from.
            context: Where the network is measured.

        Raises:
            ValueError: the network or the data is not of the kind that this measure is for.
        """

    def with_few_probes(self, number: int) -> "Measurer | None":
        """Return this measurer with few probes that are its own, for one of several independent estimates.

        Two networks whose estimates have the same probes in common have similar errors, which cancel in the difference.

        Args:
            number: Number of the estimate. Each number has other probes; equal numbers have the same probes.

        Returns:
            ``None`` if this measurer does not estimate from random probes.
        """
        return None

    def tensors(self, subject: Subject, source: Source, context: Context) -> dict[str, Tensor]:
        """Return tensors on the CPU that belong to the measurements, to be kept or drawn; by default none.

        What `measure` has computed for the same subject is not computed again.
        """
        return {}

    def pictures(self, tensors: Mapping[str, Tensor]) -> Iterable[Picture]:
        """Draw what `tensors` has returned, one picture after the other; by default nothing."""
        return []

    def distributions(self, subject: Subject, source: Source, context: Context) -> list[Distribution]:
        """Return distributions over units, for loggers that take histograms; by default none."""
        return []


class OneSplit(Measurer):
    """Base of the measurers on a fixed subset of one split.

    Args:
        split: Split of the data.
        examples: Size of the subset, fixed and keyed; ``null`` for the whole split.
        options: Arguments of the callback, if this is one.
    """

    identified_by: ClassVar[tuple[str, ...]] = ("split", "examples")

    def __init__(self, split: Split, examples: int | None, **options: Any) -> None:
        super().__init__(**options)
        self.split: Split = split
        self.examples = examples

    @property
    def measured_splits(self) -> Sequence[Split]:
        """The one split."""
        return [self.split]


class SeveralSplits(Measurer):
    """Base of the measurers on a fixed subset of each of several splits.

    Args:
        splits: Splits of the data.
        examples: Size of each subset, fixed and keyed; ``null`` for whole splits.
        options: Arguments of the callback, if this is one.
    """

    identified_by: ClassVar[tuple[str, ...]] = ("splits", "examples")

    def __init__(self, splits: Sequence[Split], examples: int | None, **options: Any) -> None:
        super().__init__(**options)
        self.splits = splits
        self.examples = examples

    @property
    def measured_splits(self) -> Sequence[Split]:
        """The given splits."""
        return self.splits
