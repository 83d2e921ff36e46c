"""Two networks of one seed on the same data: differences of measures, similarity, and the line between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import hypot, isnan, nan
from statistics import fmean, stdev
from typing import Any

from torch import Tensor

from lnsgd.analysis.checkpoints import CheckpointSet
from lnsgd.analysis.context import AnalysisContext, move_module
from lnsgd.analysis.identity import described, identity_of, key_of, source_of
from lnsgd.analysis.measurers import available_splits
from lnsgd.analysis.options import BATCH_NORM, POINTS
from lnsgd.measures import Firings
from lnsgd.measures.neurons.sites import NoSitesError
from lnsgd.measures.pairs.cka import features_before, linear_cka
from lnsgd.measures.pairs.interpolation import BatchNorm, Line, barrier, check_line
from lnsgd.measures.pairs.overlap import ever_active, jaccard, often_active
from lnsgd.measuring import (
    ActiveNeuronsMeasurer,
    Measurement,
    MeasurementData,
    Measurer,
    PerformanceMeasurer,
    Source,
    Split,
    Subject,
)
from lnsgd.records.analyses import Difference, path_row, similarity_rows
from lnsgd.records.journal import Journal
from lnsgd.replicas import data_of_network


class Arm:
    """The networks in the last checkpoint of a checkpoint set, by seed.

    Args:
        checkpoints: The checkpoint set.
        context: Where the networks are measured.

    Attributes:
        checkpoints: The checkpoint set; its last checkpoint is loaded.
        digest: Hash of the weights of that checkpoint.
        replica_of_seed: Number of each network that has not diverged, by its seed.

    Raises:
        ValueError: several networks have the same seed.
    """

    def __init__(self, checkpoints: CheckpointSet, context: AnalysisContext) -> None:
        self.checkpoints = checkpoints
        self.digest = checkpoints.checkpoints[-1].digest
        move_module(checkpoints.module, context.device, context.precision)
        checkpoints.load(checkpoints.checkpoints[-1])
        networks = checkpoints.networks
        self.replica_of_seed = {networks.seeds[number]: number for number in networks.valid}
        if len(self.replica_of_seed) < len(networks.valid):
            raise ValueError(
                f"{checkpoints.name} has replicas that differ in more than their seed, so that it is not clear which "
                "networks to compare; compare runs whose replicas differ in their seed alone"
            )

    def subject(self, seed: int, data: Any) -> Subject:
        """Return a copy of the network of a seed, on some data."""
        return self.checkpoints.subject(self.replica_of_seed[seed], data)


def common_seeds(first: Arm, second: Arm) -> list[int]:
    """Return the seeds of which both arms have a network; a pair of single networks need not have the same seed.

    Raises:
        ValueError: there is none.
    """
    replicated = [arm.checkpoints.networks.is_replicated for arm in (first, second)]
    if not any(replicated):
        return list(first.replica_of_seed)
    seeds = [seed for seed in first.replica_of_seed if seed in second.replica_of_seed]
    if not seeds or not all(replicated):
        raise ValueError(
            f"{first.checkpoints.name} has the seeds {sorted(first.replica_of_seed)}, {second.checkpoints.name} has "
            f"{sorted(second.replica_of_seed)}; give two networks, or two runs of replicas with seeds in common"
        )
    return seeds


@dataclass(frozen=True)
class ComparisonSettings:
    """How two networks are compared.

    Attributes:
        points: Number of points on the line between them, both ends included.
        batch_norm: How running statistics are found between the ends, see ``lnsgd.measures.pairs.interpolation``.
        features: Name of the module whose inputs are compared by CKA; by default the last layer.
        rounds: Number of estimates with common probes, at least 2, see ``Pair.differences``.
        source: Where the data comes from on which activations, features and the line are compared, and how the networks
            are called; by default the data of the first network, called as `lnsgd.measures.outputs_of` says.

    Raises:
        ValueError: numbers or a name that make no sense for any network.
    """

    points: int = POINTS
    batch_norm: BatchNorm = BATCH_NORM
    features: str | None = None
    rounds: int = 16
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        check_line(self.points, self.batch_norm)
        if self.rounds < 2:
            raise ValueError(f"rounds = {self.rounds}; at least 2 are needed for an error of the difference")


How = ComparisonSettings  # its name before


class Pair:
    """Two networks of one seed, both measured on the data of the first.

    What the journal has is not computed again: measurements of either network (of common probes each round), overlaps
    and CKA by split, points of the line.

    Args:
        seed: Seed of both networks.
        arms: The arms of A and of B.
        settings: How the networks are compared.
        context: Where they are measured.
        journal: What was computed before.
    """

    def __init__(
        self,
        seed: int,
        arms: tuple[Arm, Arm],
        settings: ComparisonSettings,
        context: AnalysisContext,
        journal: Journal,
    ) -> None:
        self._seed = seed
        self._arms = arms
        self._settings = settings
        self._context = context
        self._journal = journal
        data = data_of_network(arms[0].checkpoints.data, arms[0].replica_of_seed[seed])
        self._subjects = arms[0].subject(seed, data), arms[1].subject(seed, data)
        self._source = settings.source
        self._splits = available_splits(self._subjects[0], context, settings.source)
        self._networks = [
            [arm.digest, subject.replica, described(arm.checkpoints.template)]
            for arm, subject in zip(arms, self._subjects)
        ]

    def differences(self, measurer: Measurer) -> list[Difference]:
        """Take a measurer of both networks.

        What is estimated from random probes is estimated in several rounds of few probes each. Both networks have the
        probes of a round in common, and every round has its own. The error of the difference is the error of its mean
        over rounds: similar networks have similar errors, which cancel. The errors of other estimates, such as the
        trace of a spectrum, are taken to be independent.
        """
        first_round = measurer.with_few_probes(0)
        if first_round is None:
            return [_single(a, b) for a, b in self._matched(measurer)]
        found = self._matched(first_round)
        if not any(row.stderr > 0 for rows in found for row in rows):  # exact, without probes
            return [_single(a, b) for a, b in found]
        others = (measurer.with_few_probes(number) for number in range(1, self._settings.rounds))
        rounds = [found, *(self._matched(other) for other in others if other is not None)]
        return [_over_rounds(of_row) for of_row in zip(*rounds)]

    def _matched(self, measurer: Measurer) -> list[tuple[Measurement, Measurement]]:
        """Take a measurer of both networks and return the measurements that both have, side by side."""
        rows_a, rows_b = (self._measure(measurer, which) for which in (0, 1))
        of_b = {(row.measure, row.split, row.layer): row for row in rows_b}
        names = [(row.measure, row.split, row.layer) for row in rows_a]
        return [(row, of_b[name]) for name, row in zip(names, rows_a) if name in of_b]

    def _measure(self, measurer: Measurer, which: int) -> Sequence[Measurement]:
        """Take a measurer of A (0) or B (1), under the key that an analysis of it on the same data uses."""
        subject, digest = self._subjects[which], self._arms[which].checkpoints.initial_weights.digest
        key = key_of(*self._networks[which], self._identity(measurer, digest))
        return self._journal.once(key, lambda: measurer.take(subject, source_of(measurer), self._context))

    def _identity(self, measurer: Measurer, init_digest: str) -> dict[str, Any]:
        precision = self._arms[0].checkpoints.precision
        return identity_of(measurer, self._subjects[0], self._context, precision, init_digest)

    def _own_identity(self, measurer: Measurer) -> dict[str, Any]:
        """Return the identity of a measurer of this pair, which is taken on the source of the settings."""
        precision = self._arms[0].checkpoints.precision
        return identity_of(measurer, self._subjects[0], self._context, precision, "", self._source)

    def overlap(self) -> list[dict[str, Any]]:
        """Return Jaccard indices of active sets by site; nothing for networks without sites."""
        try:
            return [row for split in self._splits for row in self._overlap_on(split)]
        except NoSitesError:
            return []

    def _overlap_on(self, split: Split) -> list[dict[str, Any]]:
        measurer = ActiveNeuronsMeasurer([split])

        def compute() -> list[Measurement]:
            a, b = (measurer.firings(subject, split, self._source, self._context) for subject in self._subjects)
            sets = {"ever_active_jaccard": ever_active, "often_active_jaccard": often_active}
            return [
                Measurement(name, split, layer, _overlap(active, a[layer], b[layer]))
                for layer in a
                for name, active in sets.items()
            ]

        return similarity_rows(self._seed, self._once("overlap", self._own_identity(measurer), compute))

    def alignment(self) -> list[dict[str, Any]]:
        """Return the CKA of penultimate features."""
        return [row for split in self._splits for row in self._alignment_on(split)]

    def _alignment_on(self, split: Split) -> list[dict[str, Any]]:
        name = self._settings.features

        def compute() -> list[Measurement]:
            data = self._batches(split)
            features = (
                features_before(subject.module, name, data, outputs=self._source.outputs) for subject in self._subjects
            )
            cka = linear_cka(zip(*features))
            return [Measurement("cka", split, "", cka.biased), Measurement("cka_unbiased", split, "", cka.unbiased)]

        return similarity_rows(
            self._seed, self._once("cka", [name, self._own_identity(PerformanceMeasurer([split]))], compute)
        )

    def line(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return loss and error on the line between the two, and their barriers; nothing for networks without loss."""
        (a, b), settings, measurer = self._subjects, self._settings, PerformanceMeasurer(self._splits)
        if getattr(a.module, "loss", None) is None:
            return [], []
        data, outputs = self._batches(self._splits[0]), self._source.outputs
        line = Line(a.module, b.module, settings.points, settings.batch_norm, data, outputs=outputs)
        identity = [settings.batch_norm, self._own_identity(measurer)]
        path: list[dict[str, Any]] = []
        heights: dict[tuple[str, str], list[float]] = {}
        for t in line.ts:

            def compute(t: float = t) -> list[Measurement]:
                return measurer.take(Subject(line.network(t), a.data, a.replica), self._source, self._context)

            rows = self._once("line", [t, *identity], compute)
            for split in self._splits:
                of_split = {row.measure: row.value for row in rows if row.split == split}
                path.append(path_row(self._seed, split, t, of_split))
                for name, value in of_split.items():
                    heights.setdefault((split, name), []).append(value)
        barriers = [
            Measurement(f"{name}_barrier", split, "", barrier(values)) for (split, name), values in heights.items()
        ]
        return path, similarity_rows(self._seed, barriers)

    def _once(self, what: str, identity: Any, compute: Callable[[], list[Measurement]]) -> Sequence[Measurement]:
        return self._journal.once(key_of(what, *self._networks, identity), compute)

    def _batches(self, split: Split) -> MeasurementData:
        examples = PerformanceMeasurer().examples_of(split)
        return self._source.batches(self._subjects[0], split, examples, self._context)


def mean_over_pairs(pairs: Sequence[Difference]) -> Difference:
    """Return the mean difference of one number over pairs, its error from their spread; of one pair, its own error."""
    if len(pairs) == 1:
        return pairs[0]
    first, root = pairs[0], len(pairs) ** 0.5
    a, b = [pair.a for pair in pairs], [pair.b for pair in pairs]
    differences = [pair.difference for pair in pairs]
    errors = (stdev(values) / root for values in (differences, a, b))
    return Difference(first.split, first.measure, first.layer, fmean(a), fmean(b), fmean(differences), *errors)


def _single(a: Measurement, b: Measurement) -> Difference:
    """Return the difference of two numbers, whose errors, if they have any, are independent."""
    error = nan if isnan(a.stderr) and isnan(b.stderr) else hypot(*(e for e in (a.stderr, b.stderr) if not isnan(e)))
    return Difference(a.split, a.measure, a.layer, a.value, b.value, b.value - a.value, error, a.stderr, b.stderr)


def _over_rounds(rounds: Sequence[tuple[Measurement, Measurement]]) -> Difference:
    """Return the mean difference of one number over rounds with common probes, its error from their spread."""
    first, root = rounds[0][0], len(rounds) ** 0.5
    a, b = [row.value for row, _ in rounds], [row.value for _, row in rounds]
    differences = [value_b - value_a for value_a, value_b in zip(a, b)]
    errors = (stdev(values) / root for values in (differences, a, b))
    return Difference(first.split, first.measure, first.layer, fmean(a), fmean(b), fmean(differences), *errors)


def _overlap(active: Callable[[Firings], Tensor], first: Firings, second: Firings) -> float:
    """Return `jaccard` of the units that are active in two networks; NaN where a pre-activation was not finite."""
    return nan if first.nonfinite or second.nonfinite else jaccard(active(first), active(second))
