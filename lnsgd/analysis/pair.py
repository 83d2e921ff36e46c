"""Two networks on the same data: everything that is known of them, each number computed once."""

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor

from lnsgd.analysis.arms import Arm
from lnsgd.analysis.bench import other_weights
from lnsgd.analysis.cka import features_before, linear_cka
from lnsgd.analysis.described import described
from lnsgd.analysis.how import How
from lnsgd.analysis.interpolation import Line, barrier
from lnsgd.analysis.journal import Journal
from lnsgd.analysis.measuring import Measure, available_splits, give_init, take
from lnsgd.analysis.overlap import ever_active, jaccard, often_active
from lnsgd.analysis.paired import Difference, differences
from lnsgd.analysis.resuming import identity, key_of, once
from lnsgd.callbacks import ActiveNeurons, DistanceFromInit, Performance
from lnsgd.callbacks.measurement_data import MeasurementData, Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.measures import Firings
from lnsgd.measures.sites import ACTIVATION_TYPES
from lnsgd.modules.replicated import Subject


class Pair:
    """Two networks of one seed.

    What the journal has is not computed again: measures of either network (of those with common probes each round),
    overlaps and CKA by split, points of the line.

    Args:
        seed: Of both.
        arms: Of A and of B; both are measured on the data of A.
        how: How they are compared.
        trainer: With A attached.
        journal: Of what was computed.
    """

    def __init__(self, seed: int, arms: tuple[Arm, Arm], how: How, trainer: Trainer, journal: Journal) -> None:
        self._seed = seed
        self._arms = arms
        a = arms[0].subject(seed)
        self._subjects = a, arms[1].subject(seed, a.data)
        self._how = how
        self._trainer = trainer
        self._journal = journal
        self._splits = available_splits(trainer, a)
        self._networks = [
            [arm.digest, subject.replica, described(arm.source.structure)] for arm, subject in zip(arms, self._subjects)
        ]

    def differences(self, measure: Measure) -> list[Difference]:
        """A measure of both."""

        def of_both(measure: Measure) -> tuple[Sequence[Measurement], Sequence[Measurement]]:
            return self._measured(measure, 0), self._measured(measure, 1)

        return differences(measure, of_both, self._how.rounds)

    def _measured(self, measure: Measure, which: int) -> Sequence[Measurement]:
        """A measure of A (0) or B (1), under the key that it has in an analysis of the one source, on the same data."""
        subject = self._subjects[which]
        init = give_init([measure], self._arms[which].source) if isinstance(measure, DistanceFromInit) else ""
        key = key_of(*self._networks[which], self._identity(measure, init))
        other_weights(self._trainer)
        return once(self._journal, key, lambda: take(measure, self._trainer, subject).rows)

    def _identity(self, measure: Measure, init: str = "") -> dict[str, Any]:
        source = self._arms[0].source
        return identity(measure, self._trainer, self._subjects[0], source.precision, init)

    def overlap(self) -> list[dict[str, Any]]:
        """Jaccard indices of active sets by site; none of networks without sites."""
        if not any(isinstance(module, ACTIVATION_TYPES) for module in self._subjects[0].module.modules()):
            return []
        return [row for split in self._splits for row in self._overlap_on(split)]

    def _overlap_on(self, split: Split) -> list[dict[str, Any]]:
        looking = ActiveNeurons([split])

        def compute() -> list[Measurement]:
            a, b = (self._firings(looking, subject, split) for subject in self._subjects)
            sets = {"ever_active_jaccard": ever_active, "often_active_jaccard": often_active}
            return [
                Measurement(name, split, layer, _overlap(active, a[layer], b[layer]))
                for layer in a
                for name, active in sets.items()
            ]

        return self._rows(self._once("overlap", self._identity(looking), compute))

    def _firings(self, looking: ActiveNeurons, subject: Subject, split: Split) -> Mapping[str, Firings]:
        other_weights(self._trainer)
        return looking.firings(self._trainer, subject, split)

    def alignment(self) -> list[dict[str, Any]]:
        """CKA of penultimate features."""
        return [row for split in self._splits for row in self._alignment_on(split)]

    def _alignment_on(self, split: Split) -> list[dict[str, Any]]:
        def compute() -> list[Measurement]:
            data = self._batches(split)
            features = (features_before(subject.module, self._how.features, data) for subject in self._subjects)
            cka = linear_cka(zip(*features))
            return [Measurement("cka", split, "", cka.biased), Measurement("cka_unbiased", split, "", cka.unbiased)]

        return self._rows(self._once("cka", [self._how.features, self._identity(Performance([split]))], compute))

    def line(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Loss and error between the two, and their barriers; nothing of networks without a loss."""
        (a, b), how, measure = self._subjects, self._how, Performance(self._splits)
        if getattr(a.module, "loss", None) is None:
            return [], []
        line = Line(a.module, b.module, how.points, how.batch_norm, self._batches(self._splits[0]))
        settings = [how.batch_norm, self._identity(measure)]
        path: list[dict[str, Any]] = []
        heights: dict[tuple[str, str], list[float]] = {}
        for t in line.ts:

            def compute(t: float = t) -> list[Measurement]:
                other_weights(self._trainer)
                return measure.measure(self._trainer, Subject(line.network(t), a.data, a.replica))

            rows = self._once("line", [t, *settings], compute)
            for split in self._splits:
                of_split = {row.measure: row.value for row in rows if row.split == split}
                path.append({"seed": self._seed, "split": split, "t": t, **of_split})
                for name, value in of_split.items():
                    heights.setdefault((split, name), []).append(value)
        barriers = [
            Measurement(f"{name}_barrier", split, "", barrier(values)) for (split, name), values in heights.items()
        ]
        return path, self._rows(barriers)

    def _once(self, what: str, settings: Any, compute: Callable[[], list[Measurement]]) -> Sequence[Measurement]:
        return once(self._journal, key_of(what, *self._networks, settings), compute)

    def _batches(self, split: Split) -> MeasurementData:
        measure = Performance()
        return measure.batches(self._trainer, self._subjects[0], split, measure.examples)

    def _rows(self, found: Sequence[Measurement]) -> list[dict[str, Any]]:
        return [
            {"seed": self._seed, "split": row.split, "measure": row.measure, "layer": row.layer, "value": row.value}
            for row in found
        ]


def _overlap(active: Callable[[Firings], Tensor], first: Firings, second: Firings) -> float:
    """`jaccard` of the units that are active in two networks; NaN where a pre-activation was not finite."""
    return nan if first.nonfinite or second.nonfinite else jaccard(active(first), active(second))
