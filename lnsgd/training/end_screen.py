"""The last lines of ``lnsgd fit``: what the run came to, compared with its start, and what to do next."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from shutil import get_terminal_size
from typing import NamedTuple

from lnsgd.records.changes import config_in_effect
from lnsgd.records.headlines import headlines_of, performance
from lnsgd.records.measures import no_measures, read_measures
from lnsgd.records.provenance import LENGTH, Provenance, read_provenance
from lnsgd.records.replicas import LIMIT, diverged_replicas, read_replicas, setting_names
from lnsgd.runs.folder import RunFolder

_MISSING = "–"


class Column(NamedTuple):
    """A column of the comparison.

    Attributes:
        head: Name of the number.
        start: Its value before the first step.
        end: Its value at the end.
    """

    head: str
    start: str
    end: str


def end_screen(run: RunFolder, width: int | None = None) -> list[str]:
    """Return what is printed at the end of a run, at most five lines, from the files of the run.

    The measures at the start and at the end stand below each other, with their standard errors, or of replicas as
    mean ± standard deviation over those that did not diverge. Columns without room are left out; so are all of them
    where replicas differ in more than their seed, since their mean says nothing.

    Args:
        run: The folder of a run that has reached its end.
        width: Columns of the terminal; by default those of the present one.

    Raises:
        ValueError: a file is damaged.
    """
    ended = read_provenance(run.finished, LENGTH)
    replicas = read_replicas(run.replicas, as_text=True) if run.replicas.exists() else None
    lines: list[str] = []
    if replicas is None or not any(replicas[name].nunique() > 1 for name in setting_names(replicas)):
        columns = list(_columns(run, ended, [] if replicas is None else diverged_replicas(replicas)))
        corner = "" if replicas is None else "mean ± std"
        lines = _table(corner, f"step {ended.steps:,}", columns, width or get_terminal_size().columns)
    folder = shlex.quote(str(run.path))
    lines.append(f"measure more:   lnsgd analyze {folder}; lnsgd report {folder}")
    if further := _further(run, ended):
        lines.append(f"train further:  lnsgd fit --resume {folder} {further}")
    return lines


def _columns(run: RunFolder, ended: Provenance, diverged: Sequence[int]) -> Iterator[Column]:
    """Yield the columns of the measures and of the performance that the run has."""
    measured = read_measures(run.measures) if run.measures.exists() else no_measures()
    for name, start, end, step in headlines_of(measured, diverged):
        yield Column(name if step in (None, ended.steps) else f"{name} (step {step:,})", start or _MISSING, end)
    if found := performance(run.metrics):
        yield Column(found[0], _MISSING, found[1])


def _table(corner: str, end: str, columns: Sequence[Column], width: int) -> list[str]:
    """Lay out the columns that fit into a width, right-aligned; nothing if there is none."""
    lines = [corner, "step 0", end]
    widest = max(map(len, lines))
    lines = [line.ljust(widest) for line in lines]
    shown = 0
    for column in columns:
        cells = max(map(len, column))
        if len(lines[0]) + 2 + cells > width:
            break
        lines = [f"{line}  {cell:>{cells}}" for line, cell in zip(lines, column)]
        shown += 1
    return [line.rstrip() for line in lines] if shown else []


def _further(run: RunFolder, ended: Provenance) -> str:
    """Return the option that makes the run twice as long; empty if it cannot be resumed, or a rule has stopped it."""
    if not run.last_checkpoint.exists() or ended.stopped_by not in (None, LIMIT):
        return ""
    limits: Mapping[str, int | None] = config_in_effect(run)["trainer"]
    for name, taken in (("max_epochs", ended.epochs), ("max_steps", ended.steps)):
        limit = limits[name]
        if taken and limit is not None and 0 < limit <= taken:
            return f"--trainer.{name} {2 * int(limit)}"
    return ""
