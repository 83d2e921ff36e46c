"""Forward passes that all callbacks share which look at the same activation sites on the same data."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from lnsgd.callbacks.measurement_data import DataSource, Split
from lnsgd.measures import Firings, activation_sites, evaluation_mode, names_of_calls, observe
from lnsgd.modules.replicated import Subject


class Watch(NamedTuple):
    """What is looked at.

    Attributes:
        split: On which data.
        examples: On this many of its examples, a fixed keyed subset; ``None`` for all.
        layers: Patterns of module names; ``None`` for all activation modules.
        source: Where the data comes from.
        num_classes: Classes that are told apart; 1 for none.
    """

    split: Split
    examples: int | None
    layers: tuple[str, ...] | None
    source: DataSource
    num_classes: int


class SiteFirings:
    """`Firings` of each activation site, batch by batch.

    Args:
        module: The network.
        watch: Its sites, and the number of classes.

    Raises:
        ValueError: no sites; while counting, pre-activations that are not one row for each example.
    """

    def __init__(self, module: nn.Module, watch: Watch) -> None:
        self._sites = activation_sites(module, watch.layers)
        self._num_classes = watch.num_classes
        self._found: dict[tuple[str, int], Firings] = {}  # by site and number of its call, as they are called

    @property
    def repeated(self) -> bool:
        """Whether a site was called more than once for a batch."""
        return any(call > 1 for _, call in self._found)

    @contextmanager
    def batch(self, labels: Tensor) -> Iterator[None]:
        """Counts in the one forward pass of a batch with these labels (B, …) that is made within."""
        calls: Counter[str] = Counter()

        def add(layer: str, preactivations: Tensor) -> None:
            calls[layer] += 1
            site = layer, calls[layer]
            if len(preactivations) != len(labels):
                raise ValueError(
                    f"{layer} gets shape {tuple(preactivations.shape)} for {len(labels)} examples; its first dimension "
                    "must be the examples: leave it out of `layers`"
                )
            if site not in self._found:
                self._found[site] = self._new(preactivations)
            self._found[site].update(preactivations, labels)

        with observe(self._sites, add):
            yield

    def _new(self, preactivations: Tensor) -> Firings:
        with torch.inference_mode(False):  # made in a validation pass, it is used outside of it
            units = preactivations.shape[1:].numel()
            return Firings(self._num_classes, units, sync_on_compute=False).to(preactivations.device)

    def over_processes(self) -> Mapping[str, Firings]:
        """By site, in the order of the forward pass, summed over processes.

        Raises:
            ValueError: no site was called, or one not as often for every batch.
        """
        if not self._found:
            raise ValueError(
                f"none of the activation sites is called in a forward pass: {', '.join(self._sites)}; choose others by "
                "`layers`, and give no module that torch.compile has compiled"
            )
        for firings in self._found.values():
            firings.sync()
        for (layer, call), firings in self._found.items():
            if not torch.equal(firings.examples, self._found[layer, 1].examples):
                raise ValueError(f"{layer} is not called {call} times for every batch; leave it out of `layers`")
        return names_of_calls(self._found)


def pass_over(trainer: Trainer, subject: Subject, watch: Watch) -> Mapping[str, Firings]:
    """Firings by site in a forward pass over the data in eval mode, at the precision of validation.

    Raises:
        ValueError: see `SiteFirings`.
    """
    firings = SiteFirings(subject.module, watch)
    with torch.no_grad(), evaluation_mode(subject.module):
        for inputs, labels in watch.source.batches(trainer, subject, watch.split, watch.examples):
            with firings.batch(labels), trainer.precision_plugin.forward_context():
                subject.module(inputs)
    return firings.over_processes()


class Ride:
    """Firings in a validation pass that runs anyway, batch by batch.

    Args:
        module: The network that is validated.
        watch: What is looked at.
    """

    def __init__(self, module: LightningModule, watch: Watch) -> None:
        self.watch = watch
        self._firings = SiteFirings(module, watch)
        self._looking = ExitStack()

    def look(self, labels: Tensor) -> None:
        """The forward pass of a batch comes now."""
        self._looking.enter_context(self._firings.batch(labels))

    def look_away(self) -> None:
        """It is over."""
        self._looking.close()

    def firings(self) -> Mapping[str, Firings] | None:
        """By site, summed over processes; ``None`` where validation may be more than one forward pass a batch."""
        return None if self._firings.repeated else self._firings.over_processes()


class FiringPasses:
    """Firings of the networks of one trainer, each found once a step, whoever asks for it."""

    def __init__(self) -> None:
        self._step = -1
        self._found: dict[tuple[int, Watch], Mapping[str, Firings]] = {}
        self._riding: set[Watch] = set()

    def forget(self) -> None:
        """What was found, as the networks may have changed though no step was taken."""
        self._found.clear()
        self._riding.clear()

    def firings(self, trainer: Trainer, subject: Subject, watch: Watch) -> Mapping[str, Firings]:
        """By site, of the network as it is now; see `pass_over`."""
        found = self._at(trainer.global_step)
        key = subject.replica, watch
        if key not in found:
            found[key] = pass_over(trainer, subject, watch)
        return found[key]

    def ride(self, module: LightningModule, watch: Watch) -> Ride | None:
        """A ride on the validation that starts now; ``None`` where another callback has taken it."""
        if watch in self._riding:
            return None
        self._riding.add(watch)
        return Ride(module, watch)

    def arrive(self, trainer: Trainer, ride: Ride) -> None:
        """Keeps what was found on a ride."""
        self._riding.discard(ride.watch)
        firings = ride.firings()
        if firings is not None:
            self._at(trainer.global_step)[0, ride.watch] = firings

    def _at(self, step: int) -> dict[tuple[int, Watch], Mapping[str, Firings]]:
        if step != self._step:
            self._found.clear()
            self._step = step
        return self._found


_passes: WeakKeyDictionary[Trainer, FiringPasses] = WeakKeyDictionary()


def passes_of(trainer: Trainer) -> FiringPasses:
    """Those of a trainer, shared by its callbacks."""
    return _passes.setdefault(trainer, FiringPasses())


def validates_all(trainer: Trainer) -> bool:
    """Whether the validation that starts now covers the whole split, after the last step of an epoch of training."""
    loader = trainer.val_dataloaders
    return (
        trainer.state.fn == "fit"
        and not trainer.sanity_checking
        and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        and isinstance(loader, Sized)
        and trainer.num_val_batches == [len(loader)]
    )
