"""Two networks, or two arms of networks, against each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pytorch_lightning import LightningDataModule, Trainer
from rich.console import Console
from torch import nn

from lnsgd.analysis.analyze import choose, progress_bar
from lnsgd.analysis.bench import bench, other_weights
from lnsgd.analysis.cka import features_before, linear_cka, named_module
from lnsgd.analysis.interpolation import BatchNorm, along_line, barrier, check_line
from lnsgd.analysis.measuring import Measure, available_splits, give_init, take
from lnsgd.analysis.opening import Given, open_sources
from lnsgd.analysis.overlap import ever_active, jaccard, often_active
from lnsgd.analysis.paired import Both, Difference, check_rounds, differences, over_pairs
from lnsgd.analysis.source import Source
from lnsgd.callbacks import ActiveNeurons, DistanceFromInit, Performance
from lnsgd.callbacks.measurement_data import MeasurementData, Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.data import ReplicatedData
from lnsgd.measures import Firings
from lnsgd.measures.sites import ACTIVATION_TYPES
from lnsgd.modules import ReplicatedModule
from lnsgd.modules.replicated import Subject


@dataclass(frozen=True)
class How:
    """How networks are compared.

    Attributes:
        points: Of the line between them, both ends included.
        batch_norm: What becomes of running statistics between the ends, see `along_line`.
        features: Name of the module whose inputs are compared by CKA; by default those of the last layer.
        rounds: Of common probes, at least 2, see `differences`.

    Raises:
        ValueError: numbers or a name that make no sense for any network.
    """

    points: int = 11
    batch_norm: BatchNorm = "reestimate"
    features: str | None = None
    rounds: int = 16

    def __post_init__(self) -> None:
        check_line(self.points, self.batch_norm)
        check_rounds(self.rounds)


class Comparison(NamedTuple):
    """What was found of A and B.

    Attributes:
        differences: A row for each number that both have: split, measure, layer, a, b, difference (b − a), stderr,
            stderr_a, stderr_b, pairs. Means over pairs with standard errors from their spread; of one pair, those of
            random probes, NaN where it is exact.
        similarity: Seed, split, measure, layer, value, of every pair: ``ever_active_jaccard`` (of the sets of units
            that fire on at least one example) and ``often_active_jaccard`` (on more than half of them) by site;
            ``cka`` and ``cka_unbiased`` of penultimate features, see `lnsgd.analysis.cka.CKA`; ``loss_barrier`` and
            ``error_barrier``, see `lnsgd.analysis.interpolation.barrier`.
        path: Seed, split, t, loss, error on the straight line from A (t = 0) to B (t = 1).
    """

    differences: pd.DataFrame
    similarity: pd.DataFrame
    path: pd.DataFrame


def compare(
    a: str | Path,
    b: str | Path,
    *,
    data: LightningDataModule | None = None,
    measures: Sequence[Measure] | None = None,
    model: nn.Module | None = None,
    loss: Callable[..., Any] | None = None,
    init: str | Path | None = None,
    accelerator: str = "auto",
    batch_size: int | None = None,
    how: How = How(),
) -> Comparison:
    """Compares two networks of one structure, or two runs of replicas, paired by their seeds.

    Of a run it is the last checkpoint. Both networks are measured on the data of A, so that they see the same examples.
    Units are compared by their place: that is of use where B began as A did, or went on from it.

    Args:
        a: A run's folder, a checkpoint of a run, or a file of weights.
        b: The same.
        data: See `lnsgd.analysis.analyze`.
        measures: The same.
        model: The same.
        loss: The same.
        init: The same.
        accelerator: The same.
        batch_size: The same.
        how: How they are compared.

    Raises:
        ValueError: see `lnsgd.analysis.analyze`; networks of different structure; runs without a seed in common.
        OSError: data is missing.
    """
    given = Given(model, loss, data, None if init is None else Path(init), batch_size)
    chosen = (measures or [], measures is None)
    return run_comparison(Path(a), Path(b), given, *chosen, accelerator, how, Console(quiet=True))


def run_comparison(
    a: Path,
    b: Path,
    given: Given,
    asked: Sequence[Measure],
    defaults: bool,
    accelerator: str,
    how: How,
    console: Console,
) -> Comparison:
    """See `compare`; what is left out is said on the console."""
    first, second = (_last(*open_sources([path], given)) for path in (a, b))
    named_module(first.structure, how.features)
    measures = choose(first, asked, defaults, accelerator, console)
    if second.init is None:
        measures = _without_distance(measures, asked, second)
    with bench(first, measures, accelerator) as trainer, progress_bar(console) as bar:
        arms = _Arm(first, trainer), _Arm(second, trainer)
        pairs = _pairs(*arms)
        task = bar.add_task(f"{first.name} and {second.name}", total=len(pairs) * (len(measures) + 3))
        found = _Found()
        for seed in pairs:
            pair = _Pair(seed, arms, _on_the_same_data(seed, *arms), how)
            for measure in measures:
                found.differences += pair.differences(measure)
                bar.advance(task)
            for part in (pair.overlap, pair.alignment):
                found.similarity += part()
                bar.advance(task)
            path, barriers = pair.line()
            found.path += path
            found.similarity += barriers
            bar.advance(task)
        second.module.cpu()
    return found.comparison()


def _last(source: Source) -> Source:
    """With its last checkpoint only."""
    source.checkpoints = source.checkpoints[-1:]
    return source


def _without_distance(measures: Sequence[Measure], asked: Sequence[Measure], source: Source) -> list[Measure]:
    if any(isinstance(measure, DistanceFromInit) for measure in asked):
        raise ValueError(f"DistanceFromInit cannot be taken of {source.name}: there are no initial weights θ₀")
    return [measure for measure in measures if not isinstance(measure, DistanceFromInit)]


class _Arm:
    """The networks of a checkpoint, by seed.

    Raises:
        ValueError: a seed stands for several networks.
    """

    def __init__(self, source: Source, trainer: Trainer) -> None:
        self.source = source
        self.trainer = trainer
        module: Any = source.module
        module.trainer = trainer
        trainer.precision_plugin.convert_module(module)
        module.to(trainer.strategy.root_device)
        source.load(source.checkpoints[0])
        living = module.frozen.living if isinstance(module, ReplicatedModule) else [0]
        self.of_seed = {source.seeds[replica]: replica for replica in living}
        if len(self.of_seed) < len(living):
            raise ValueError(
                f"{source.name} has replicas that differ in more than their seed, so that it is not clear which are "
                "pairs; compare runs whose replicas differ in their seed alone"
            )

    def subject(self, seed: int) -> Subject:
        """A network of its own."""
        module, data, replica = self.source.module, self.source.data, self.of_seed[seed]
        if not isinstance(module, ReplicatedModule):
            return Subject(module, data, replica)
        assert isinstance(data, ReplicatedData)
        return Subject(module.replica(replica), data.variant(replica), replica)

    def take(self, measure: Measure, subject: Subject) -> list[Measurement]:
        """A measure of one of the networks."""
        other_weights(self.trainer)
        give_init([measure], self.source)
        return take(measure, self.trainer, subject).rows


def _pairs(first: _Arm, second: _Arm) -> list[int]:
    """Seeds of which both have a network.

    Raises:
        ValueError: there is none.
    """
    if len(first.source.replicas) == len(second.source.replicas) == 0:
        return list(first.of_seed)
    seeds = [seed for seed in first.of_seed if seed in second.of_seed]
    if not seeds or not (first.source.replicas and second.source.replicas):
        raise ValueError(
            f"{first.source.name} has the seeds {sorted(first.of_seed)}, {second.source.name} has "
            f"{sorted(second.of_seed)}; give two networks, or two runs of replicas with seeds in common"
        )
    return seeds


def _on_the_same_data(seed: int, first: _Arm, second: _Arm) -> tuple[Subject, Subject]:
    a, replica = first.subject(seed), second.of_seed[seed]
    module = second.source.module
    return a, Subject(module.replica(replica) if isinstance(module, ReplicatedModule) else module, a.data, replica)


@dataclass
class _Found:
    """Rows, as they are found."""

    differences: list[Difference] = field(default_factory=list)
    similarity: list[dict[str, Any]] = field(default_factory=list)
    path: list[dict[str, Any]] = field(default_factory=list)

    def comparison(self) -> Comparison:
        """The tables; differences are means over pairs."""
        by_name: dict[tuple[str, str, str], list[Difference]] = {}
        for one in self.differences:
            by_name.setdefault((one.split, one.measure, one.layer), []).append(one)
        rows = [{**over_pairs(pairs)._asdict(), "pairs": len(pairs)} for pairs in by_name.values()]
        return Comparison(pd.DataFrame(rows), pd.DataFrame(self.similarity), pd.DataFrame(self.path))


class _Pair:
    """Two networks on the same data."""

    def __init__(self, seed: int, arms: tuple[_Arm, _Arm], subjects: tuple[Subject, Subject], how: How) -> None:
        self._seed = seed
        self._arms = arms
        self._subjects = subjects
        self._how = how
        self._trainer = arms[0].trainer
        self._splits = available_splits(self._trainer, subjects[0])

    def differences(self, measure: Measure) -> list[Difference]:
        """A measure of both."""

        def of_both(measure: Measure) -> Both:
            a, b = (arm.take(measure, subject) for arm, subject in zip(self._arms, self._subjects))
            return a, b

        return differences(measure, of_both, self._how.rounds)

    def overlap(self) -> list[dict[str, Any]]:
        """Jaccard indices of active sets by site; none of networks without sites."""
        if not any(isinstance(module, ACTIVATION_TYPES) for module in self._subjects[0].module.modules()):
            return []
        looking, found = ActiveNeurons(self._splits), []
        for split in self._splits:
            a, b = (self._firings(looking, subject, split) for subject in self._subjects)
            for layer in a:
                for name, active in (("ever_active_jaccard", ever_active), ("often_active_jaccard", often_active)):
                    found.append(self._row(split, name, layer, jaccard(active(a[layer]), active(b[layer]))))
        return found

    def _firings(self, looking: ActiveNeurons, subject: Subject, split: Split) -> Mapping[str, Firings]:
        other_weights(self._trainer)
        return looking.firings(self._trainer, subject, split)

    def alignment(self) -> list[dict[str, Any]]:
        """CKA of penultimate features."""
        found = []
        for split in self._splits:
            data = self._batches(split)
            features = (features_before(subject.module, self._how.features, data) for subject in self._subjects)
            cka = linear_cka(zip(*features))
            found += [self._row(split, "cka", "", cka.biased), self._row(split, "cka_unbiased", "", cka.unbiased)]
        return found

    def line(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Loss and error between the two, and their barriers; nothing of networks without a loss."""
        (a, b), measure = self._subjects, Performance(self._splits)
        if getattr(a.module, "loss", None) is None:
            return [], []
        how = self._how
        at = along_line(
            a.module,
            b.module,
            how.points,
            how.batch_norm,
            self._batches(self._splits[0]),
            lambda module: measure.measure(self._trainer, Subject(module, a.data, a.replica)),
        )
        path: list[dict[str, Any]] = []
        heights: dict[tuple[str, str], list[float]] = {}
        for t, rows in at:
            for split in self._splits:
                of_split = {row.measure: row.value for row in rows if row.split == split}
                path.append({"seed": self._seed, "split": split, "t": t, **of_split})
                for name, value in of_split.items():
                    heights.setdefault((split, name), []).append(value)
        return path, [self._row(split, f"{name}_barrier", "", barrier(v)) for (split, name), v in heights.items()]

    def _batches(self, split: Split) -> MeasurementData:
        measure = Performance()
        return measure.batches(self._trainer, self._subjects[0], split, measure.examples)

    def _row(self, split: str, measure: str, layer: str, value: float) -> dict[str, Any]:
        return {"seed": self._seed, "split": split, "measure": measure, "layer": layer, "value": value}
