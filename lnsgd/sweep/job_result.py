"""The result of a job: a row for each of its cells, and every number that was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import pandas as pd

from lnsgd import __version__
from lnsgd.records.cells import (
    DIVERGED,
    DONE,
    FAILED,
    LIMIT,
    CellResult,
    final_measures,
    write_cells,
    write_trajectories,
)
from lnsgd.records.jobs import Attempts, JobSpec
from lnsgd.records.measures import no_measures, read_measures
from lnsgd.records.metrics import read_logged
from lnsgd.records.provenance import TRAINED, Provenance, read_provenance
from lnsgd.records.replicas import LIMIT as BY_LIMIT
from lnsgd.records.replicas import End, read_ends
from lnsgd.runs.errors import DivergedError
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep.folder import SweepFolder

_LOSS = "train/loss"


def write_result(sweep: SweepFolder, spec: JobSpec, attempts: Attempts) -> None:
    """Write the result of a job whose run has finished.

    The status of a cell is ``done``, ``limit`` (the limit of steps came before a stopping rule) or ``diverged``, which
    has no final measures. A replica's seconds are those of its job divided by the number of replicas.
    """
    run = sweep.run(spec.name)
    ended = read_provenance(run.finished, TRAINED)
    measured = _measured(run)
    ends = read_ends(run.replicas, len(spec.cells)) if spec.replicated else [_end_of_ordinary(run, ended)]
    assert ended.seconds is not None
    results = [
        replace(
            _outcome(end, ended),
            epochs=ended.epochs,
            seconds=round(ended.seconds / len(spec.cells), 3),
            device=ended.device,
            lnsgd=ended.versions["lnsgd"],
            torch=ended.versions["torch"],
        )
        for end in ends
    ]
    trained = [result.status != DIVERGED for result in results]
    measures = [final_measures(measured, number) if trained[number] else {} for number in range(len(results))]
    # The result is written last, because its cells count as complete once it exists.
    write_trajectories(measured, [name for name, _ in spec.cells], sweep.trajectories(spec.name))
    _write_rows(sweep, spec, attempts, results, measures)


def write_failed(sweep: SweepFolder, spec: JobSpec, attempts: Attempts) -> None:
    """Write that a job has failed for good; the reason is the last error."""
    reason = attempts.errors[-1] if attempts.errors else "its process died"
    _write_rows(sweep, spec, attempts, [CellResult(status=FAILED, reason=reason, lnsgd=__version__)] * len(spec.cells))


def write_diverged(sweep: SweepFolder, spec: JobSpec, attempts: Attempts, error: DivergedError) -> None:
    """Write that an ordinary run, of one cell, has diverged; it is not repeated, because it would diverge again."""
    result = CellResult(
        status=DIVERGED,
        reason=f"diverged at step {error.step}: {error}",
        steps=error.step,
        lnsgd=__version__,
        torch=version("torch"),
    )
    measured = _measured(sweep.run(spec.name))
    write_trajectories(measured, [spec.cells[0][0]], sweep.trajectories(spec.name))
    _write_rows(sweep, spec, attempts, [result])


def _write_rows(
    sweep: SweepFolder,
    spec: JobSpec,
    attempts: Attempts,
    results: Sequence[CellResult],
    measures: Sequence[Mapping[str, float]] | None = None,
) -> None:
    """Write how each cell of a job ended, and its final measures if it has any."""
    rows = [
        (name, options, replace(result, attempts=attempts.begun, job=spec.name), final)
        for (name, options), result, final in zip(spec.cells, results, measures or [{}] * len(results))
    ]
    write_cells(rows, sweep.result(spec.name))


def _measured(run: RunFolder) -> pd.DataFrame:
    return read_measures(run.measures) if run.measures.exists() else no_measures()


def _outcome(end: End, ended: Provenance) -> CellResult:
    """Return status, reason and steps of one cell."""
    if end.diverged_at is not None:
        return CellResult(status=DIVERGED, reason=f"diverged at step {end.diverged_at}", steps=end.diverged_at)
    steps = ended.steps if end.stopped_at is None else end.stopped_at
    if end.stopped_by == BY_LIMIT:
        reason = f"the limit of {steps} steps came before its stopping rule"
        return CellResult(status=LIMIT, reason=reason, steps=steps)
    return CellResult(status=DONE, reason=f"stopped by {end.stopped_by}" if end.stopped_by else "", steps=steps)


def _end_of_ordinary(run: RunFolder, ended: Provenance) -> End:
    """Return how an ordinary run ended; it has diverged at the first training loss that is not finite."""
    losses = read_logged(run.metrics, _LOSS) if run.metrics.exists() else iter(())
    diverged = next((step for step, loss in losses if not math.isfinite(loss)), None)
    return End(diverged_at=diverged, stopped_by=ended.stopped_by)
