"""Measurers of neurons: how often each unit of an activation site fires."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lnsgd import measures
from lnsgd.measures import (
    TOTAL,
    Firings,
    SiteCounts,
    SiteFirings,
    UnitCount,
    activation_sites,
    associated_class,
    evaluation_mode,
)
from lnsgd.measures.forward import Inputs, call_network, one_tensor_of
from lnsgd.measuring.context import Context, Split
from lnsgd.measuring.measurement import Distribution, Measurement, Picture
from lnsgd.measuring.measurer import Measurer
from lnsgd.measuring.pictures import plot_histograms
from lnsgd.measuring.source import Source
from lnsgd.measuring.subject import Subject


class FiringPass(NamedTuple):
    """A forward pass in which the firings of activation sites are counted; measurers with the same pass share it.

    Attributes:
        split: Split of the data.
        examples: Size of the subset, fixed and keyed; ``None`` for the whole split.
        layers: Patterns of sites, see `lnsgd.measures.activation_sites`.
        after: Patterns of modules, see `lnsgd.measures.activation_sites`.
        source: Where the data comes from.
        num_classes: Number of classes that are counted apart; 1 if the classes do not matter.
    """

    split: Split
    examples: int | None
    layers: tuple[str, ...] | None
    after: tuple[str, ...]
    source: Source
    num_classes: int

    def new_count(self, module: nn.Module) -> SiteFirings:
        """Return a new count of the firings of a network at these sites.

        Raises:
            ValueError: a pattern that can match nothing.
        """
        return SiteFirings(activation_sites(module, self.layers, self.after), self.num_classes)


def count_in_pass(subject: Subject, which: FiringPass, context: Context) -> Mapping[str, Firings]:
    """Return the firings by site in a forward pass in eval mode; the pass is made once for a subject.

    Raises:
        ValueError: see `lnsgd.measures.SiteFirings`.
    """

    def compute() -> Mapping[str, Firings]:
        firings = which.new_count(subject.module)
        with torch.no_grad(), evaluation_mode(subject.module), firings.observing():
            for inputs, labels in which.source.batches(subject, which.split, which.examples, context):
                firings.count(lambda few: call_in_format(subject.module, few, which.source, context), inputs, labels)
        return firings.found(together=True)

    return subject.once(which, compute)


def call_in_format(module: nn.Module, inputs: Inputs, source: Source, context: Context) -> None:
    """Call a network as a source says, in the number format of the context."""
    with context.precision.forward_context():
        call_network(module, inputs, source.outputs)


class ActivationMeasurer(Measurer):
    """Base of the measurers of each activation site on each split, by how often its units fire.

    A unit is active on an example if its pre-activation, the input of the activation, is > 0. For ReLU this means that
    its output is not zero; GELU, SiLU and other smooth activations are not zero elsewhere either. All dimensions but
    the first are units: channels × height × width of a convolution, tokens × features of a transformer, in which the
    tokens that pad a sentence count too. A site that is called k times in a forward pass, such as the one ReLU of a
    block of torchvision's ResNets, is k sites: ``layer1.0.relu#1`` to ``#k``, in the order of the calls. Which sites
    there are says `lnsgd.measures.activation_sites`; a warning lists the activations that are not counted.

    The layer ``total`` stands for the units of all sites together. Measurers that look at the same sites on the same
    data share one forward pass.

    Args:
        splits: Splits of the data.
        layers: Shell-style patterns of modules, whose inputs are the pre-activations, and of functions that they call;
            by default all activations.
        after: Shell-style patterns of modules whose outputs are pre-activations, such as ``*.bn1``; the site is called
            ``<module>.output``. ``null`` for none.
        examples: Size of the subset of the training split, fixed and keyed; ``null`` for the whole split. The other
            splits are always measured whole, as validation does.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: `check`: a pattern that can match nothing; on measuring, no sites that are called, or a site that
            was asked for whose pre-activations do not have one row for each example.
    """

    quantity: ClassVar[str]
    identified_by: ClassVar[tuple[str, ...]] = ("splits", "layers", "after", "examples")

    def __init__(
        self,
        splits: Sequence[Split] = ("train", "val"),
        layers: Sequence[str] | None = None,
        examples: int | None = 2_000,
        after: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.splits = splits
        self.layers = layers
        self.after = after
        self.examples = examples

    @property
    def measured_splits(self) -> Sequence[Split]:
        """The given splits."""
        return self.splits

    def examples_of(self, split: Split) -> int | None:
        """Size of the subset of a split; only the training split is measured in part."""
        return self.examples if split == "train" else None

    def check(self, network: nn.Module) -> None:
        """Check that the patterns of sites can match something in the network.

        Raises:
            ValueError: one cannot.
        """
        super().check(network)
        activation_sites(network, self.layers, self.after or ())

    def classes_needed(self, subject: Subject, source: Source, context: Context) -> int:
        """Number of classes that must be counted apart; 1 if the classes do not matter."""
        return 1

    @abstractmethod
    def count(self, firings: Firings) -> UnitCount:
        """Return the number of units of one site."""

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure all sites together, and each site, on each split; NaN where a pre-activation was NaN or infinite."""
        found = []
        for split in self.splits:
            counts = SiteCounts.of(self.firings(subject, split, source, context), self.count)
            for layer, of in {TOTAL: counts.total, **counts.per_site}.items():
                found.append(Measurement(f"{self.quantity}_count", split, layer, of.count))
                found.append(Measurement(f"{self.quantity}_fraction", split, layer, of.fraction))
        return found

    def firings(self, subject: Subject, split: Split, source: Source, context: Context) -> Mapping[str, Firings]:
        """Return the firings of each site on a split in eval mode, summed over processes."""
        return count_in_pass(subject, self.firing_pass(subject, split, source, context), context)

    def firing_pass(self, subject: Subject, split: Split, source: Source, context: Context) -> FiringPass:
        """Return the forward pass over a split, with the classes that any measurer needs which shares it."""
        mine = self._looks_at(split, source)
        sharing = [(self, source)]
        for other, its_source in context.together:
            if not isinstance(other, ActivationMeasurer) or split not in other.splits:
                continue
            if other._looks_at(split, its_source) == mine:
                sharing.append((other, its_source))
        classes = max(measurer.classes_needed(subject, its_source, context) for measurer, its_source in sharing)
        return FiringPass(split, *mine, classes)

    def _looks_at(
        self, split: Split, source: Source
    ) -> tuple[int | None, tuple[str, ...] | None, tuple[str, ...], Source]:
        layers = None if self.layers is None else tuple(self.layers)
        return self.examples_of(split), layers, tuple(self.after or ()), source


class ActiveNeuronsMeasurer(ActivationMeasurer):
    """Measures the typical number of active neurons of every activation site, see `lnsgd.measures.active_count`.

    Gives ``active_count/<split>/<layer>`` and ``active_fraction/<split>/<layer>``, and for loggers that take
    histograms ``firing_rate/<split>/<layer>``, how often each neuron fires. For the arguments see
    `ActivationMeasurer`.
    """

    quantity = "active"
    headline = ("active_fraction", "active")

    def count(self, firings: Firings) -> UnitCount:
        """Return the mean number of active units of one site."""
        return measures.active_count(firings)

    def distributions(self, subject: Subject, source: Source, context: Context) -> list[Distribution]:
        """Return on which fraction of the examples each unit fires; nothing for a site that was not finite."""
        return [
            Distribution(f"firing_rate/{split}", layer, firings.fired.sum(0) / firings.examples.sum())
            for split in self.splits
            for layer, firings in self.firings(subject, split, source, context).items()
            if not firings.nonfinite
        ]


class DeadNeuronsMeasurer(ActivationMeasurer):
    """Measures how many neurons never fire, see `lnsgd.measures.dead_count`.

    Gives ``dead_count/<split>/<layer>`` and ``dead_fraction/<split>/<layer>``. For the arguments see
    `ActivationMeasurer`.
    """

    quantity = "dead"
    headline = ("dead_count", "dead")

    def count(self, firings: Firings) -> UnitCount:
        """Return the number of dead units of one site."""
        return measures.dead_count(firings)


class ClassAssociationMeasurer(ActivationMeasurer):
    """Measures the class-associated neurons of every activation site, see `lnsgd.measures.associated_count`.

    Gives ``associated_count/<split>/<layer>`` and ``associated_fraction/<split>/<layer>``, and as tensors the firings
    of each site on the first split.

    Args:
        threshold: A neuron belongs to a class if it fires for it at least this many times as much as for any other.
        rates: Compare rates per example of a class instead of counts.
        num_classes: C; by default the ``num_classes`` of the DataModule or the number of ``classes`` of the data set;
            if neither exists, the largest label in the data plus one.
        histograms: Number of neurons of each site whose firings by class are drawn, or of channels of a convolution
            (features of a transformer), over all positions; 0 for no pictures.
        options: See `ActivationMeasurer`.

    Raises:
        ValueError: on measuring, labels that are not class indices.
    """

    quantity = "associated"
    headline = ("associated_count", "associated")
    identified_by = (*ActivationMeasurer.identified_by, "threshold", "rates")

    def __init__(
        self,
        threshold: float = 2.0,
        rates: bool = False,
        num_classes: int | None = None,
        histograms: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.threshold = threshold
        self.rates = rates
        self.num_classes = num_classes
        self.histograms = histograms

    def classes_needed(self, subject: Subject, source: Source, context: Context) -> int:
        """Return the number of classes C."""
        if self.num_classes is not None:
            return self.num_classes
        return max(source.num_classes(subject, split, self.examples_of(split), context) for split in self.splits)

    def count(self, firings: Firings) -> UnitCount:
        """Return the number of units of one site that are associated with a class."""
        return measures.associated_count(firings, self.threshold, self.rates)

    def tensors(self, subject: Subject, source: Source, context: Context) -> dict[str, Tensor]:
        """Return the firings of each site on the first split, and the counts or rates that are drawn.

        They are called ``<layer>/fired``, of shape (C, units), and ``<layer>/neuron`` or ``<layer>/channel``.
        """
        found: dict[str, Tensor] = {}
        for layer, firings in self.firings(subject, self.splits[0], source, context).items():
            found[f"{layer}/fired"] = firings.fired.cpu()
            if self.histograms:
                compared = measures.class_firings(firings, self.rates)
                drawn = measures.channel_sums(compared, firings.unit_shape)[:, : self.histograms]
                found[f"{layer}/{'channel' if len(firings.unit_shape) > 1 else 'neuron'}"] = drawn.cpu()
        return found

    def pictures(self, tensors: Mapping[str, Tensor]) -> Iterator[Picture]:
        """Draw the firing histograms of each site, one after the other."""
        for name, of in tensors.items():
            layer, _, unit = name.rpartition("/")
            if unit != "fired":
                figure = plot_histograms(of, associated_class(of, self.threshold), unit=unit)
                yield Picture(f"firing_histograms/{self.splits[0]}", layer, figure)


class HiddenUnitsMeasurer(Measurer):
    """Measures ``activation``, its mean over the training set, and ``output_weight`` of every hidden unit.

    Unit j has the layer ``net.activations.0.j``. For networks with one hidden layer and one output only, see
    `lnsgd.measures.hidden_units`.

    Raises:
        ValueError: on measuring, another network.
    """

    headline = ("activation", "activation")

    @property
    def measured_splits(self) -> Sequence[Split]:
        """The training split."""
        return ["train"]

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure each unit."""
        net = subject.mlp()
        inputs = torch.cat([one_tensor_of(inputs) for inputs, _ in source.batches(subject, "train", None, context)])
        units = measures.hidden_units(net, inputs)
        found = []
        for j, (activation, weight) in enumerate(zip(units.activations.mean(0), units.output_weights)):
            layer = f"net.activations.0.{j}"
            found.append(Measurement("activation", "train", layer, activation.item()))
            found.append(Measurement("output_weight", "", layer, weight.item()))
        return found
