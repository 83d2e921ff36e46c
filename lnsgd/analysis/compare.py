"""Two networks, or two arms of networks, against each other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pytorch_lightning import LightningDataModule, Trainer
from rich.console import Console
from torch import nn

from lnsgd.analysis.analyze import choose, progress_bar
from lnsgd.analysis.arms import Arm, check_alike, pairs
from lnsgd.analysis.bench import bench
from lnsgd.analysis.cka import features_before, named_module
from lnsgd.analysis.how import How
from lnsgd.analysis.journal import journal_in
from lnsgd.analysis.measuring import NO_INIT, Measure, available_splits, first_batches
from lnsgd.analysis.opening import Given, open_sources
from lnsgd.analysis.pair import Pair
from lnsgd.analysis.paired import Difference, over_pairs
from lnsgd.analysis.source import Source
from lnsgd.callbacks import DistanceFromInit, Performance

# Columns of the tables; on the line there is one more for each of loss and error, where they are known.
DIFFERENCES = [*Difference._fields, "pairs"]
SIMILARITY = ["seed", "split", "measure", "layer", "value"]
LINE = ["seed", "split", "t"]


class Comparison(NamedTuple):
    """What was found of A and B.

    Attributes:
        differences: A row for each number that both have: split, measure, layer, a, b, difference (b − a), stderr,
            stderr_a, stderr_b, pairs. Means over pairs with standard errors from their spread; of one pair, those of
            random probes, NaN where it is exact.
        similarity: Seed, split, measure, layer, value, of every pair: ``ever_active_jaccard`` (of the sets of units
            that fire on at least one example) and ``often_active_jaccard`` (on more than half of them) by site;
            ``cka`` and ``cka_unbiased`` of penultimate features, see ``lnsgd.analysis.cka``; ``loss_barrier`` and
            ``error_barrier``, see ``lnsgd.analysis.interpolation``.
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
    out: str | Path | None = None,
    accelerator: str = "auto",
    batch_size: int | None = None,
    trust: Sequence[str] = (),
    how: How | None = None,
) -> Comparison:
    """Compares two networks of one structure, or two runs of replicas, paired by their seeds.

    Of a run it is the last checkpoint. Both networks are measured on the data of A, so that they see the same examples.
    Units are compared by their place: that is of use where B began as A did, or went on from it. What was computed with
    the same weights, data and settings before, in the same ``out``, is not computed again.

    Args:
        a: A run's folder, a checkpoint of a run, or a file of weights.
        b: The same.
        data: See `lnsgd.analysis.analyze`.
        measures: The same.
        model: The same.
        loss: The same.
        init: The same.
        out: The same.
        accelerator: The same.
        batch_size: The same.
        trust: The same.
        how: How they are compared; by default as `How()`.

    Raises:
        ValueError: see `lnsgd.analysis.analyze`; networks of different structure; runs without a seed in common.
        OSError: data is missing.
    """
    given = Given(model, loss, data, None if init is None else Path(init), batch_size, trust)
    chosen = (measures or [], measures is None)
    folder = None if out is None else Path(out)
    return run_comparison(Path(a), Path(b), given, *chosen, folder, accelerator, how or How(), Console(quiet=True))


def run_comparison(
    a: Path,
    b: Path,
    given: Given,
    asked: Sequence[Measure],
    defaults: bool,
    out: Path | None,
    accelerator: str,
    how: How,
    console: Console,
) -> Comparison:
    """See `compare`; what is left out is said on the console. Nothing is written before all has been tried."""
    first, second = (_last(*open_sources([path], given)) for path in (a, b))
    check_alike(first, second)
    named_module(first.structure, how.features)
    measures = choose(first, asked, defaults, accelerator, console)
    if second.init is None:
        measures = _without_distance(measures, asked, second, console)
    with bench(first, measures, accelerator) as trainer:
        arms = Arm(first, trainer), Arm(second, trainer)
        seeds = pairs(*arms)
        _try_features(arms[0], seeds[0], how, trainer)
        with journal_in(out) as journal, progress_bar(console) as bar:
            task = bar.add_task(f"{first.name} and {second.name}", total=len(seeds) * (len(measures) + 3))
            found = _Found()
            for seed in seeds:
                for _ in found.of(Pair(seed, arms, how, trainer, journal), measures):
                    bar.advance(task)
        second.module.cpu()
    return found.comparison()


def _last(source: Source) -> Source:
    """With its last checkpoint only."""
    source.checkpoints = source.checkpoints[-1:]
    return source


def _without_distance(
    measures: Sequence[Measure], asked: Sequence[Measure], source: Source, console: Console
) -> list[Measure]:
    """Measures that need no initial weights; one that does is left out, or refused where it was asked for."""
    left = [measure for measure in measures if not isinstance(measure, DistanceFromInit)]
    if any(isinstance(measure, DistanceFromInit) for measure in asked):
        raise ValueError(f"DistanceFromInit cannot be taken of {source.name}: {NO_INIT}")
    if len(left) < len(measures):
        console.print(f"DistanceFromInit is left out: of {source.name} {NO_INIT}", style="dim", soft_wrap=True)
    return left


def _try_features(arm: Arm, seed: int, how: How, trainer: Trainer) -> None:
    """Raises ValueError where a forward pass does not call the module whose inputs are to be compared."""
    subject = arm.subject(seed)
    split = available_splits(trainer, subject)[0]
    batch = first_batches(Performance([split]), trainer, subject)
    next(features_before(subject.module, how.features, [(batch[f"{split}/inputs"], batch[f"{split}/labels"])]))


@dataclass
class _Found:
    """Rows, as they are found."""

    differences: list[Difference] = field(default_factory=list)
    similarity: list[dict[str, Any]] = field(default_factory=list)
    path: list[dict[str, Any]] = field(default_factory=list)

    def of(self, pair: Pair, measures: Sequence[Measure]) -> Iterator[None]:
        """Adds all that is known of a pair; stops after each part."""
        for measure in measures:
            self.differences += pair.differences(measure)
            yield
        for part in (pair.overlap, pair.alignment):
            self.similarity += part()
            yield
        path, barriers = pair.line()
        self.path += path
        self.similarity += barriers
        yield

    def comparison(self) -> Comparison:
        """The tables; differences are means over pairs."""
        by_name: dict[tuple[str, str, str], list[Difference]] = {}
        for one in self.differences:
            by_name.setdefault((one.split, one.measure, one.layer), []).append(one)
        rows = [{**over_pairs(pairs)._asdict(), "pairs": len(pairs)} for pairs in by_name.values()]
        measured = list(dict.fromkeys(name for row in self.path for name in row if name not in LINE))
        return Comparison(
            pd.DataFrame(rows, columns=DIFFERENCES),
            pd.DataFrame(self.similarity, columns=SIMILARITY),
            pd.DataFrame(self.path, columns=[*LINE, *measured]),
        )
