"""Two networks, or two arms of networks paired by their seeds, compared with each other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pytorch_lightning import LightningDataModule
from rich.console import Console
from torch import nn

from lnsgd.analysis.analyses import progress_bar
from lnsgd.analysis.checkpoints import CheckpointSet, Overrides, open_inputs, set_up_data
from lnsgd.analysis.context import AnalysisContext, choose_device, measuring_context
from lnsgd.analysis.identity import first_batch, name_of
from lnsgd.analysis.measurers import NO_INIT, Selection, available_splits, choose_measurers, with_sources
from lnsgd.analysis.pairs import Arm, ComparisonSettings, Pair, common_seeds, mean_over_pairs
from lnsgd.analysis.weights import mismatch
from lnsgd.measures.pairs.cka import features_before, named_module
from lnsgd.measuring import Measurer
from lnsgd.records.analyses import Difference, differences_table, path_table, similarity_table
from lnsgd.records.journal import journal_in
from lnsgd.replicas import data_of_network


class Comparison(NamedTuple):
    """The tables of a comparison of A and B.

    Attributes:
        differences: A row for each number that both have: split, measure, layer, a, b, difference (b − a), stderr,
            stderr_a, stderr_b, pairs. Of several pairs these are means with standard errors from their spread; of one
            pair the standard errors are those of random probes, NaN where a number is exact.
        similarity: Seed, split, measure, layer and value, of every pair: ``ever_active_jaccard`` (of the sets of units
            that fire on at least one example) and ``often_active_jaccard`` (on more than half of them) by site;
            ``cka`` and ``cka_unbiased`` of penultimate features, see ``lnsgd.measures.pairs.cka``; ``loss_barrier`` and
            ``error_barrier``, see ``lnsgd.measures.pairs.interpolation``.
        path: Seed, split, t, loss and error on the straight line from A (t = 0) to B (t = 1).
    """

    differences: pd.DataFrame
    similarity: pd.DataFrame
    path: pd.DataFrame


def compare(
    a: str | Path,
    b: str | Path,
    *,
    data: LightningDataModule | None = None,
    measures: Sequence[Measurer] | None = None,
    model: nn.Module | None = None,
    loss: Callable[..., Any] | None = None,
    init: str | Path | None = None,
    out: str | Path | None = None,
    accelerator: str = "auto",
    batch_size: int | None = None,
    trust: Sequence[str] = (),
    how: ComparisonSettings | None = None,
) -> Comparison:
    """Compare two networks of one structure, or two runs of replicas paired by their seeds.

    Of a run the last checkpoint is taken. Both networks are measured on the data of A, so that they see the same
    examples. Units are compared by their place, which is of use where B started from the weights of A or from the same
    initial weights. What was computed before with the same weights, data and settings, in the same ``out``, is not
    computed again.

    Args:
        a: A run's folder, a checkpoint of a run, or a file of weights.
        b: Another one.
        data: See `lnsgd.analysis.analyze`, as for all arguments but the last.
        measures: Measurers or measuring callbacks.
        model: The network of files of weights.
        loss: Per-example loss.
        init: File of the initial weights of both.
        out: Folder that keeps what was computed.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        batch_size: Number of examples in a forward pass.
        trust: Packages whose code the configs of runs may import.
        how: Settings of the comparison; by default `ComparisonSettings()`.

    Raises:
        ValueError: see `lnsgd.analysis.analyze`; the networks differ in structure, or the runs have no seed in common.
        OSError: data is missing.
    """
    overrides = Overrides(model, loss, data, None if init is None else Path(init), batch_size, trust)
    selection = Selection(measures or [], with_defaults=measures is None)
    folder, settings = None if out is None else Path(out), how or ComparisonSettings()
    return run_comparison((Path(a), Path(b)), overrides, selection, folder, accelerator, settings, Console(quiet=True))


def run_comparison(
    inputs: tuple[Path, Path],
    overrides: Overrides,
    selection: Selection,
    out: Path | None,
    accelerator: str,
    settings: ComparisonSettings,
    console: Console,
) -> Comparison:
    """Compare two networks or runs; see `compare`. Nothing is written before everything has been tried.

    Args:
        inputs: A and B.
        overrides: What replaces the configs of runs.
        selection: The measurers that are asked for.
        out: See `compare`.
        accelerator: See `compare`.
        settings: How the networks are compared.
        console: Where it prints what is left out, and shows the progress.

    Raises:
        ValueError: see `compare`.
        OSError: data is missing.
    """
    first, second = (_open_last(path, overrides) for path in inputs)
    _check_same_structure(first, second)
    named_module(first.template, settings.features)
    set_up_data([first], choose_device(accelerator))
    measurers = choose_measurers(first, selection, accelerator, console)
    if second.init is None:
        measurers = _without_init(measurers, selection, second, console)
    with measuring_context(first, accelerator, with_sources(measurers)) as context:
        arms = Arm(first, context), Arm(second, context)
        seeds = common_seeds(*arms)
        _try_features(arms[0], seeds[0], settings, context)
        with journal_in(out) as journal, progress_bar(console) as bar:
            task = bar.add_task(f"{first.name} and {second.name}", total=len(seeds) * (len(measurers) + 3))
            rows = _Rows()
            for seed in seeds:
                for _ in rows.add(Pair(seed, arms, settings, context, journal), measurers):
                    bar.advance(task)
        second.module.cpu()
    return rows.comparison()


def _open_last(path: Path, overrides: Overrides) -> CheckpointSet:
    """Open an input with its last checkpoint only."""
    (opened,) = open_inputs([path], overrides)
    opened.checkpoints = opened.checkpoints[-1:]
    return opened


def _check_same_structure(first: CheckpointSet, second: CheckpointSet) -> None:
    """Raise ValueError if the networks differ in structure, and name the tensors that differ."""
    wanted, found = (one.template.state_dict() for one in (first, second))
    if wrong := mismatch(found, wanted):
        raise ValueError(
            f"{second.name} cannot be compared with {first.name}: of its {len(found)} tensors and the {len(wanted)} of "
            f"{first.name}, {wrong}; give two networks of one structure"
        )


def _without_init(
    measurers: Sequence[Measurer], selection: Selection, checkpoints: CheckpointSet, console: Console
) -> list[Measurer]:
    """Return the measurers that need no initial weights; refuse one that does and was asked for."""
    for measurer in measurers:
        if measurer.needs_init and any(measurer is asked for asked in selection.asked):
            raise ValueError(f"{name_of(measurer)} cannot be taken of {checkpoints.name}: {NO_INIT}")
        if measurer.needs_init:
            said = f"{name_of(measurer)} is left out: of {checkpoints.name} {NO_INIT}"
            console.print(said, style="dim", soft_wrap=True)
    return [measurer for measurer in measurers if not measurer.needs_init]


def _try_features(arm: Arm, seed: int, settings: ComparisonSettings, context: AnalysisContext) -> None:
    """Raise ValueError if a forward pass does not call the module whose inputs are to be compared."""
    subject = arm.subject(seed, data_of_network(arm.checkpoints.data, arm.replica_of_seed[seed]))
    split = available_splits(subject, context, settings.source)[0]
    batch = first_batch(split, None, subject, settings.source, context)
    next(features_before(subject.module, settings.features, [batch], outputs=settings.source.outputs))


@dataclass
class _Rows:
    """Rows of the tables of a comparison."""

    differences: list[Difference] = field(default_factory=list)
    similarity: list[dict[str, Any]] = field(default_factory=list)
    path: list[dict[str, Any]] = field(default_factory=list)

    def add(self, pair: Pair, measurers: Sequence[Measurer]) -> Iterator[None]:
        """Add everything about a pair, and yield after each part."""
        for measurer in measurers:
            self.differences += pair.differences(measurer)
            yield
        for part in (pair.overlap, pair.alignment):
            self.similarity += part()
            yield
        path, barriers = pair.line()
        self.path += path
        self.similarity += barriers
        yield

    def comparison(self) -> Comparison:
        """Return the tables; differences are means over pairs."""
        by_name: dict[tuple[str, str, str], list[Difference]] = {}
        for one in self.differences:
            by_name.setdefault((one.split, one.measure, one.layer), []).append(one)
        rows = [(mean_over_pairs(pairs), len(pairs)) for pairs in by_name.values()]
        return Comparison(differences_table(rows), similarity_table(self.similarity), path_table(self.path))
