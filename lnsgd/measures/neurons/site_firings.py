"""Firings of every activation site of a network on data."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.forward import (
    Batches,
    Inputs,
    OutputsFunction,
    call_network,
    examples_in,
    first_examples,
    map_inputs,
)
from lnsgd.measures.neurons.firings import Firings, check_classes
from lnsgd.measures.neurons.observation import Observation, observe
from lnsgd.measures.neurons.sites import Sites, names_of_calls

# Counts of more bytes than this are refused: they are 8 bytes for each class and unit.
_LARGEST = 16 * 2**30

# Number of examples of the forward pass that shows where the examples are.
_FEW = 2


class SiteFirings:
    """Counting of `Firings` of each activation site of a network, batch by batch.

    The examples must be along the first axis of the pre-activations. A forward pass of two examples, before the first
    batch, shows whether they are. A site where they are not, such as one of windows of an image, or of a network
    that puts tokens first, is left out; if it was asked for by a pattern, it is refused.

    Args:
        sites: The activation sites.
        num_classes: Number of classes C that are counted apart; 1 if the classes do not matter; ``None`` for the
            largest label plus one, at least 2.
    """

    def __init__(self, sites: Sites, num_classes: int | None) -> None:
        self._sites = sites
        self._num_classes = num_classes or 2
        self._may_grow = num_classes is None
        self._found: dict[tuple[str, int], Firings] = {}  # by site and number of its call, in the order of the calls
        self._left_out: dict[tuple[str, int], str] = {}
        self._tried: dict[str, int] = {}  # how often each site was called in a forward pass of a few examples
        self._calls: Counter[str] = Counter()
        self._observation = Observation(sites)
        self._passes = self._batches = 0
        self._look: Callable[[tuple[str, int], Tensor], None] | None = None

    @property
    def is_one_pass_a_batch(self) -> bool:
        """Whether the network was called exactly once for each batch."""
        return self._passes == self._batches > 0

    @contextmanager
    def observing(self, *, whole: bool = False, functions: bool = True) -> Iterator[None]:
        """Observe the forward passes within.

        Args:
            whole: See `lnsgd.measures.observe`.
            functions: See `lnsgd.measures.observe`.
        """
        with observe(self._sites, self._observed, whole=whole, functions=functions) as self._observation:
            yield

    @property
    def has_functions(self) -> bool:
        """Whether a site of the forward pass of `try_out` is a function."""
        return any(name not in self._sites for name in self._tried)

    def count(self, call: Callable[[Inputs], Any], inputs: Inputs, labels: Tensor) -> None:
        """Count in a forward pass of a batch; call it within `observing`.

        Args:
            call: Calls the network.
            inputs: Inputs of B examples.
            labels: Labels (B, …); they must be class indices (B,) unless C = 1.

        Raises:
            ValueError: a site that is asked for does not have the examples along its first axis; sites whose units
                change from batch to batch; labels that are not classes; counts that are too large for the memory.
        """
        self.try_out(call, inputs)
        with self.batch(labels):
            call(inputs)

    def try_out(self, call: Callable[[Inputs], Any], inputs: Inputs) -> None:
        """Find the sites that have the examples along their first axis, once, in a forward pass of two examples.

        Args:
            call: Calls the network.
            inputs: Inputs of a batch.

        Raises:
            ValueError: a site that is asked for does not.
        """
        if self._tried:
            return
        examples = examples_in(inputs)
        # Another number of examples than that of the batch; a single one is doubled.
        few = map_inputs(lambda t: torch.cat([t, t]), inputs) if examples == 1 else first_examples(inputs, _FEW)
        if examples == _FEW:
            few = first_examples(inputs, 1)
        size = examples_in(few)
        with self._looking(lambda site, preactivations: self._check_axis(site, preactivations, size)):
            call(few)
            self._tried = dict(self._calls)
        self._sites.check_found(self._tried)

    @contextmanager
    def batch(self, labels: Tensor) -> Iterator[None]:
        """Count in the one forward pass that is made within, of a batch with these labels (B, …)."""
        if self._num_classes > 1 or self._may_grow:
            check_classes(labels, None if self._may_grow else self._num_classes)
        if self._may_grow and len(labels):
            self._grow(int(labels.max()) + 1)
        before = self._observation.calls
        with self._looking(lambda site, preactivations: self._add(site, preactivations, labels)):
            yield
        self._passes += self._observation.calls - before
        self._batches += 1

    def found(self, together: bool = False) -> Mapping[str, Firings]:
        """Return the firings by site, in the order of the forward pass.

        Warns once of activations that were not counted, if no sites were asked for.

        Args:
            together: Sum over the processes of ``torch.distributed``; call it on all of them.

        Raises:
            ValueError: no site was counted, or a site was not called equally often for every batch.
        """
        if not self._batches:
            raise ValueError("no examples to count firings on; the data is empty")
        if self._left_out and not self._found:
            raise ValueError(f"no activation site can be counted: {'; '.join(self._left_out.values())}")
        self._sites.check_found(name for name, _ in self._found)
        for firings in self._found.values() if together else ():
            firings.sync()
        for (name, call), firings in self._found.items():
            if not torch.equal(firings.examples, self._found[name, 1].examples):
                raise ValueError(f"{name} is not called {call} times for every batch; leave it out of `layers`")
        if not self._sites.is_chosen and (message := self._not_counted()):
            _warn_once(message)
        return names_of_calls(self._found)

    def _observed(self, name: str, preactivations: Tensor) -> None:
        if self._look is not None:
            self._calls[name] += 1
            self._look((name, self._calls[name]), preactivations)

    @contextmanager
    def _looking(self, look: Callable[[tuple[str, int], Tensor], None]) -> Iterator[None]:
        self._calls.clear()
        self._look = look
        try:
            yield
        finally:
            self._look = None

    def _check_axis(self, site: tuple[str, int], preactivations: Tensor, examples: int) -> None:
        name, shape = site[0], tuple(preactivations.shape)
        if not preactivations.is_floating_point():
            problem = f"{name} gets {preactivations.dtype}, of which it is not clear what is above 0"
        elif not shape or shape[0] != examples:
            problem = f"{name} gets shape {shape} for {examples} examples; its first dimension must be the examples"
        else:
            return
        if self._sites.is_chosen:
            raise ValueError(f"{problem}: leave it out of {self._sites.chosen_by(name)}")
        self._left_out[site] = problem

    def _add(self, site: tuple[str, int], preactivations: Tensor, labels: Tensor) -> None:
        if site in self._left_out:
            return
        name, shape = site[0], tuple(preactivations.shape)
        if not shape or len(preactivations) != len(labels):
            raise ValueError(
                f"{name} gets shape {shape} for {len(labels)} examples; its first dimension must be the examples: "
                f"leave it out of {self._sites.chosen_by(name)}"
            )
        if site not in self._found:
            self._found[site] = self._new(preactivations, self._num_classes)
        firings = self._found[site]
        if firings.unit_shape != shape[1:]:
            raise ValueError(
                f"{name} gets shape {shape} after units of shape {firings.unit_shape}; they must be the same in every "
                "batch: pad or crop all examples to one size"
            )
        firings.update(preactivations, labels.to(preactivations.device))

    def _new(self, preactivations: Tensor, classes: int) -> Firings:
        shape = tuple(preactivations.shape[1:])
        units = preactivations.shape[1:].numel()
        there = sum(firings.fired.numel() for firings in self._found.values())
        if (there + classes * units) * 8 > _LARGEST:
            raise ValueError(
                f"the firings of {there // classes + units:,} units by {classes:,} classes take more than "
                f"{_LARGEST >> 30} GiB; choose fewer sites by `layers`"
            )
        with torch.inference_mode(False):  # made in a validation pass, it is used outside of it
            return Firings(classes, units, shape, sync_on_compute=False).to(preactivations.device)

    def _grow(self, classes: int) -> None:
        """Count more classes apart from now on."""
        if classes <= self._num_classes:
            return
        self._num_classes = classes
        for site, old in self._found.items():
            new = Firings(classes, old.fired.shape[1], old.unit_shape, sync_on_compute=False).to(old.fired.device)
            new.fired[: len(old.fired)] = old.fired
            new.examples[: len(old.examples)] = old.examples
            new.nonfinite += old.nonfinite
            self._found[site] = new

    def _not_counted(self) -> str:
        """Describe the activations that are not counted; empty if there are none."""
        hiding = [f"{name} ({type(module).__name__})" for name, module in self._sites.hiding.items()]
        unseen = [*hiding, *self._observation.unseen]
        parts = [f"within {', '.join(unseen)} they cannot be seen"] if unseen else []
        if self._left_out:
            where = ", ".join(dict.fromkeys(name for name, _ in self._left_out))
            parts.append(f"of {where} the first dimension is not the examples")
        return (
            f"not all activations of {type(self._sites.model).__name__} are counted: {'; '.join(parts)}"
            if parts
            else ""
        )


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def site_firings(
    model: nn.Module,
    data: Batches,
    num_classes: int | None = 1,
    *,
    layers: Sequence[str] | None = None,
    after: Sequence[str] = (),
    outputs: OutputsFunction | None = None,
) -> Mapping[str, Firings]:
    """Count on how many examples of each class each unit of each activation site of a network fires.

    Args:
        model: Any module; it runs in eval mode and is not changed.
        data: Batches (inputs, labels) on the model's device, such as a DataLoader.
        num_classes: Number of classes that are counted apart; 1 if the classes do not matter; ``None`` for the largest
            label plus one, at least 2.
        layers: Patterns of sites, see `activation_sites`; by default all.
        after: Patterns of modules whose outputs are pre-activations, see `activation_sites`.
        outputs: How the network is called, see `lnsgd.measures.OutputsFunction`.

    Returns:
        Counts by the name of the site, in the order of the forward pass.

    Raises:
        ValueError: see `activation_sites` and `SiteFirings`; no examples.
    """
    counting = SiteFirings(Sites(model, layers, after), num_classes)
    with torch.no_grad(), evaluation_mode(model), counting.observing():
        for inputs, labels in data:
            counting.count(lambda few: call_network(model, few, outputs), inputs, labels)
    return counting.found()
