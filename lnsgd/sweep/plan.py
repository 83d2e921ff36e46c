"""What of a sweep is to be run, and in which jobs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnsgd.sweep.cells import Cell, Cells, resolved_cells
from lnsgd.sweep.executor import Resources
from lnsgd.sweep.folder import JobSpec, SweepFolder, config_hash
from lnsgd.sweep.grid import Point, Sweep
from lnsgd.sweep.judge import Judge
from lnsgd.sweep.packing import Job, pack, settings_of
from lnsgd.sweep.resolve import written
from lnsgd.sweep.submission import remembered
from lnsgd.sweep.table import complete_cells


@dataclass(frozen=True)
class Packed:
    """All cells of a sweep, packed as they would be if nothing had been run.

    Attributes:
        cells: All cells of the grid.
        jobs: Their jobs, by name.
        judge: What packs some of them anew.
    """

    cells: Cells
    jobs: Mapping[str, Job]
    judge: Judge


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        cells: All cells of the grid.
        complete: Names of those that have a row.
        begun: Jobs that were begun before, and go on as they were packed.
        new: Jobs that were not.
    """

    cells: Cells
    complete: frozenset[str]
    begun: tuple[JobSpec, ...]
    new: tuple[JobSpec, ...]

    @property
    def jobs(self) -> tuple[JobSpec, ...]:
        """All jobs, in the order in which they begin."""
        return (*self.begun, *self.new)


def pack_cells(sweep: Sweep, read: Callable[[Point], Mapping[str, Any]], resources: Resources) -> Packed:
    """Packs all cells into jobs, at least as many as run at once. Reads nothing of what was run before.

    Args:
        sweep: The sweep.
        read: From a cell's options to its resolved config; raises ValueError where there is none.
        resources: What a job can count on.

    Raises:
        ValueError: see `lnsgd.sweep.cells.resolved_cells`.
    """
    cells = resolved_cells(sweep, read)
    most = max(1, -(-len(cells.cells) // resources.at_once))
    judge = Judge(cells.first, read, resources, most)
    return Packed(cells, {job.name: job for job in pack(cells.first, cells.cells, judge)}, judge)


def make_plan(sweep: Sweep, packed: Packed, folder: SweepFolder, again: Collection[str] = ()) -> Plan:
    """Chooses the jobs of the cells that have no row yet.

    A job that was begun keeps its packing as long as all its cells are wanted and have no row; so does any job while
    another ``lnsgd sweep`` works in the folder, and any that SLURM may have. The other cells are packed as they would
    be if nothing had been run, so that the jobs do not depend on how far a sweep came before it was interrupted; only
    where some but not all cells of such a job are missing, these are packed anew.

    Args:
        sweep: The sweep.
        packed: Its cells.
        folder: Where it goes, which need not exist. What is to be run is to be planned within its ``planning()``.
        again: Jobs that have ended, but whose cells are to be run again.
    """
    cells = packed.cells
    known = {name: [cell.name for cell in job.cells] for name, job in packed.jobs.items()}
    complete = complete_cells(folder, known, again)
    missing = {cell.name: cell for cell in cells.cells if cell.name not in complete}
    configs = {str(path): config_hash(path) for path in sweep.base}
    begun = _kept(folder, cells, missing, again)
    for job in begun:
        for cell in job.cells:
            del missing[cell.name]
    new = [job for job in packed.jobs.values() if all(cell.name in missing for cell in job.cells)]
    for job in new:
        for cell in job.cells:
            del missing[cell.name]
    new += pack(cells.first, missing.values(), packed.judge)
    wanted = frozenset(cell.name for cell in cells.cells if cell.name in complete)
    kept, others = (tuple(_spec(sweep, job, configs) for job in jobs) for jobs in (begun, new))
    return Plan(cells, wanted, kept, others)


def _kept(folder: SweepFolder, cells: Cells, missing: Mapping[str, Cell], again: Collection[str]) -> list[Job]:
    """Jobs whose packing stays. Only that: the options that give their cells may have changed with sweep or base.

    One that has ended since the rows were read is among them, so that its cells are not packed anew.
    """
    kept: list[Job] = []
    taken: set[str] = set()
    others = folder.others_at_work()
    handed_over = {job for array in remembered(folder) for job in array.jobs if array.number is not None}
    for name in folder.planned_jobs():
        if name in again or not (others or folder.begun(name) or name in handed_over):
            continue
        spec = folder.read_job(name)
        names = [cell for cell, _ in spec.cells]
        if missing.keys() >= set(names) and taken.isdisjoint(names):
            members = tuple(missing[cell] for cell in names)
            settings = settings_of(cells.first, members) if spec.replicated else None
            kept.append(Job(name, members, settings, spec.reason))
            taken.update(names)
    return kept


def _spec(sweep: Sweep, job: Job, configs: Mapping[str, str]) -> JobSpec:
    arguments = written({**sweep.options, **job.cells[0].options})
    if job.settings is not None:
        arguments += written({f"replicas.{name}": values for name, values in job.settings.items()})
    if sweep.wandb is not None:
        # A logger in place of the base config's, which would not know the group.
        name = job.name if sweep.wandb.name == sweep.name else f"{sweep.name} {job.name}"
        arguments += written({"trainer.logger": sweep.wandb.logger(name, sweep.name)})
    cells = [(cell.name, dict(cell.options)) for cell in job.cells]
    return JobSpec(job.name, cells, dict(configs), arguments, job.settings is not None, job.reason)


def varied(cells: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, list[Any]]:
    """The options in which cells differ, each with its values in the order in which they come."""
    values: dict[str, list[Any]] = {}
    for _, options in cells:
        for name, value in options.items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return {name: found for name, found in values.items() if len(found) > 1}
