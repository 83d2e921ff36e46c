"""Measurers of weights: distance from initialization, norms, singular values, clusters of neurons."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from lnsgd import measures
from lnsgd.measuring.context import Context, Split
from lnsgd.measuring.measurement import Measurement
from lnsgd.measuring.measurer import Measurer, SeveralSplits
from lnsgd.measuring.source import Source
from lnsgd.measuring.subject import Subject


class DistanceFromInitMeasurer(Measurer):
    """Measures ‖θ − θ₀‖₂ as ``distance_from_init`` and, per tensor, ``distance_from_init/<tensor>``.

    The distance is over all weights, frozen ones included, see `lnsgd.measures.distance_from_init`.

    Args:
        per_tensor: Measure each tensor's distance too.
        options: Schedule of the callback, see `lnsgd.callbacks.base.MeasureCallback`.

    Raises:
        ValueError: on measuring, θ₀ is not known.
    """

    headline = ("distance_from_init", "distance")
    needs_init = True

    def __init__(self, per_tensor: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.per_tensor = per_tensor

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure the total distance and that of each tensor."""
        distance = measures.distance_from_init(subject.module, subject.initial_weights())
        found = [Measurement("distance_from_init", "", "", distance.total)]
        if self.per_tensor:
            found += [Measurement("distance_from_init", "", name, d) for name, d in distance.per_tensor.items()]
        return found


class WeightNormsMeasurer(Measurer):
    """Measures ``norm/<tensor>`` of every weight, and of biases ``bias_mean/<tensor>`` and ``bias_max/<tensor>``.

    See `lnsgd.measures.tensor_statistics`; a weight of one dimension is a bias. The weights are those that the network
    computes with, see `lnsgd.measures.weights_in_use`.

    Args:
        spectral: Also measure ``spectral_norm/<tensor>`` of every weight matrix, and over all of them the products
            ``spectral_norm_product`` and ``norm_product``. See `lnsgd.measures.norm_products` for the cost (30 s
            for 5120 × 5120 on one core; choose a schedule or ``max_overhead`` accordingly) and for networks with
            convolutions, whose filters are left out and whose products are NaN.
        options: Schedule of the callback, see `lnsgd.callbacks.base.MeasureCallback`.
    """

    headline = ("norm", "norm")
    identified_by = ("spectral",)

    def __init__(self, spectral: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.spectral = spectral

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure each tensor; if asked for, also spectral norms and products of norms."""
        parameters = measures.weights_in_use(subject.module)
        found = []
        for name, of_tensor in measures.tensor_statistics(parameters).items():
            found.append(Measurement("norm", "", name, of_tensor.norm))
            if parameters[name].ndim == 1:
                found.append(Measurement("bias_mean", "", name, of_tensor.mean))
                found.append(Measurement("bias_max", "", name, of_tensor.largest))
        return found + _products(parameters) if self.spectral else found


def _products(parameters: Mapping[str, Tensor]) -> list[Measurement]:
    found = measures.norm_products(parameters)
    return [
        *(Measurement("spectral_norm", "", name, norm) for name, norm in found.spectral_norms.items()),
        Measurement("spectral_norm_product", "", "", found.spectral),
        Measurement("norm_product", "", "", found.frobenius),
    ]


class SingularValuesMeasurer(SeveralSplits):
    """Measures ``singular_value_1``, ``_2``, … and ``effective_rank`` of weight and of feature matrices.

    Of every trained weight matrix (``singular_value_1/<tensor>``), and on each split of the outputs of every activation
    site, one row per example (``singular_value_1/<split>/<layer>``). See `lnsgd.measures.effective_rank`.

    Args:
        splits: Splits on which features are computed.
        layers: Shell-style patterns of module names; by default all activation modules, or none if ``after`` is given.
        after: Shell-style patterns of modules whose outputs are taken as features, such as ``*.layers.0`` for
            pre-activations; their names end in ``.output``.
        number: Number of singular values, the largest ones.
        tolerance: A singular value counts for the rank if it is above this fraction of the largest.
        examples: Size of the subset of each split, fixed and keyed; ``null`` for whole splits.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: number below 1, or a tolerance outside (0, 1); on measuring, a pattern that matches no module.
    """

    headline = ("effective_rank", "rank")
    identified_by = ("splits", "layers", "after", "number", "tolerance", "examples")

    def __init__(
        self,
        splits: Sequence[Split] = ("train",),
        layers: Sequence[str] | None = None,
        number: int = 5,
        tolerance: float = 0.01,
        examples: int | None = 10_000,
        after: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(splits, examples, **options)
        if number < 1:
            raise ValueError(f"SingularValues: number = {number}; give at least 1")
        if not 0 < tolerance < 1:
            raise ValueError(
                f"SingularValues: tolerance = {tolerance} is outside (0, 1); it is relative to the largest"
            )
        self.layers = layers
        self.after = after
        self.number = number
        self.tolerance = tolerance

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure each matrix."""
        found: list[Measurement] = []
        for name, weight in _matrices(subject):
            found += self._of_matrix(weight, "", name)
        for split in self.splits:
            for name, matrix in _features(self, subject, source, context, split, self.layers).items():
                found += self._of_matrix(matrix, split, name)
        return found

    def _of_matrix(self, matrix: Tensor, split: str, layer: str) -> list[Measurement]:
        values = measures.singular_values(matrix).tolist()
        rank = measures.effective_rank(values, self.tolerance)
        largest = (
            Measurement(f"singular_value_{k}", split, layer, value) for k, value in enumerate(values[: self.number], 1)
        )
        return [Measurement("effective_rank", split, layer, rank), *largest]


class ClusterCountMeasurer(SeveralSplits):
    """Measures ``cluster_count``, the number of clusters that the neurons of a layer form.

    Of the rows of each trained weight matrix (``cluster_count/<tensor>``), and of the feature vectors of the neurons
    (``cluster_count/<split>/<module>.output``) if ``after`` is given. The feature vector of a neuron has its output on
    each example, (n,). See `lnsgd.measures.clusters`: neighbours in a cluster are at most ``tolerance`` apart.

    Args:
        tolerance: Largest Euclidean distance of neighbours, in units of the weights or of the outputs.
        after: Shell-style patterns of modules whose outputs are the features, such as ``*.layers.0`` for
            pre-activations (Gatmiry et al., 2024, Fig. 1b).
        splits: Splits on which features are computed.
        examples: Size of the subset of each split, fixed and keyed; ``null`` for whole splits.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: a negative tolerance; on measuring, a pattern that matches no module.
    """

    headline = ("cluster_count", "clusters")
    identified_by = ("splits", "after", "tolerance", "examples")

    def __init__(
        self,
        tolerance: float = 0.03,
        after: Sequence[str] = (),
        splits: Sequence[Split] = ("train",),
        examples: int | None = 10_000,
        **options: Any,
    ) -> None:
        super().__init__(splits, examples, **options)
        if not tolerance >= 0:
            raise ValueError(f"ClusterCount: tolerance = {tolerance} is negative; it is a distance")
        self.tolerance = tolerance
        self.after = after

    @property
    def measured_splits(self) -> Sequence[Split]:
        """The given splits, or none where only weights are measured."""
        return self.splits if self.after else ()

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure each matrix."""
        found = [
            Measurement("cluster_count", "", name, measures.cluster_count(weight, self.tolerance))
            for name, weight in _matrices(subject)
        ]
        for split in self.measured_splits:
            for name, matrix in _features(self, subject, source, context, split).items():
                count = measures.cluster_count(matrix.T, self.tolerance)
                found.append(Measurement("cluster_count", split, name, count))
        return found


def _matrices(subject: Subject) -> Iterator[tuple[str, Tensor]]:
    """Yield the trained weight matrices by name, as the network computes with them."""
    for name, weight in measures.weights_in_use(subject.module, trainable_only=True).items():
        if weight.ndim == 2:
            yield name, weight


def _features(
    measurer: SingularValuesMeasurer | ClusterCountMeasurer,
    subject: Subject,
    source: Source,
    context: Context,
    split: Split,
    layers: Sequence[str] | None = None,
) -> Mapping[str, Tensor]:
    """Return the features of a split by layer, (n, units) each."""
    batches = source.batches(subject, split, measurer.examples, context)
    return measures.features(subject.module, batches, layers, after=measurer.after)
