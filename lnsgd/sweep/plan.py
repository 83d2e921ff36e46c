"""The plan of a sweep: which cells still have to run, and in which jobs."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from lnsgd.records.jobs import JobSpec, config_hash
from lnsgd.records.submissions import read_submissions
from lnsgd.sweep.capacity import CapacityEstimator
from lnsgd.sweep.cells import Cell, Cells, resolve_cells
from lnsgd.sweep.config_reader import as_arguments
from lnsgd.sweep.executors.base import Resources
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import Point, Sweep
from lnsgd.sweep.packing import Capacity, Job, pack, replica_settings
from lnsgd.sweep.results import complete_cells


@dataclass(frozen=True)
class PackedSweep:
    """All cells of a sweep, packed as if nothing had run yet.

    Attributes:
        cells: All cells of the grid.
        jobs: Their jobs, by name.
        capacity_of: The capacities by which cells are packed, to pack some of them again.
    """

    cells: Cells
    jobs: Mapping[str, Job]
    capacity_of: Callable[[Cell], Capacity]


@dataclass(frozen=True)
class Plan:
    """The jobs that are to be run.

    Attributes:
        cells: All cells of the grid.
        complete: Names of the cells that have a row.
        begun: Jobs that were started before, and continue as they were packed.
        new: Jobs that were never started.
    """

    cells: Cells
    complete: frozenset[str]
    begun: tuple[JobSpec, ...]
    new: tuple[JobSpec, ...]

    @property
    def jobs(self) -> tuple[JobSpec, ...]:
        """All jobs in the order in which they start."""
        return (*self.begun, *self.new)


def pack_cells(sweep: Sweep, read: Callable[[Point], Mapping[str, object]], resources: Resources) -> PackedSweep:
    """Pack all cells into jobs, at least as many as run at the same time, without reading what was run before.

    Args:
        sweep: The sweep.
        read: Maps the options of a cell to its resolved config; raises ValueError for options that are not valid.
        resources: The resources of a job.

    Raises:
        ValueError: See `lnsgd.sweep.cells.resolve_cells`.
    """
    cells = resolve_cells(sweep, read)
    max_replicas = max(1, -(-len(cells.cells) // resources.at_once))
    capacity_of = CapacityEstimator(cells.first, read, resources, max_replicas)
    jobs = pack(cells.first, cells.cells, capacity_of)
    return PackedSweep(cells, {job.name: job for job in jobs}, capacity_of)


def make_plan(sweep: Sweep, packed: PackedSweep, folder: SweepFolder, again: Collection[str] = ()) -> Plan:
    """Choose the jobs for the cells that have no row yet.

    A job that was started keeps its packing if all its cells are wanted and have no row. So does every job while
    another ``lnsgd sweep`` works in the folder, and every job that SLURM may have. All other cells are packed as if
    nothing had run, so that the jobs do not depend on when the sweep was interrupted. Only if some, but not all, cells
    of such a job are missing, the missing cells are packed anew.

    Args:
        sweep: The sweep.
        packed: Its cells.
        folder: Folder of the sweep, which need not exist. To run the plan, call this within ``planning()``.
        again: Jobs that have ended, but whose cells are to be run again.
    """
    cells = packed.cells
    known = {name: [cell.name for cell in job.cells] for name, job in packed.jobs.items()}
    complete = complete_cells(folder, known, again)
    missing = {cell.name: cell for cell in cells.cells if cell.name not in complete}
    configs = {str(path): config_hash(path) for path in sweep.base}
    begun = _kept_jobs(folder, cells, missing, again)
    for job in begun:
        for cell in job.cells:
            del missing[cell.name]
    new = [job for job in packed.jobs.values() if all(cell.name in missing for cell in job.cells)]
    for job in new:
        for cell in job.cells:
            del missing[cell.name]
    new += pack(cells.first, missing.values(), packed.capacity_of)
    wanted = frozenset(cell.name for cell in cells.cells if cell.name in complete)
    kept, others = (tuple(_job_spec(sweep, job, configs) for job in jobs) for jobs in (begun, new))
    return Plan(cells, wanted, kept, others)


def _kept_jobs(folder: SweepFolder, cells: Cells, missing: Mapping[str, Cell], again: Collection[str]) -> list[Job]:
    """List the jobs whose packing stays; their arguments are made anew, because sweep or base config may have changed.

    A job that ended after the rows were read is included, so that its cells are not packed anew.
    """
    kept: list[Job] = []
    taken: set[str] = set()
    others = folder.others_at_work()
    submitted = {
        job for array in read_submissions(folder.submissions) for job in array.jobs if array.number is not None
    }
    for name in folder.planned_jobs():
        if name in again or not (others or folder.begun(name) or name in submitted):
            continue
        spec = folder.read_job(name)
        names = [cell for cell, _ in spec.cells]
        if missing.keys() >= set(names) and taken.isdisjoint(names):
            members = tuple(missing[cell] for cell in names)
            settings = replica_settings(cells.first, members) if spec.replicated else None
            kept.append(Job(name, members, settings, spec.reason))
            taken.update(names)
    return kept


def _job_spec(sweep: Sweep, job: Job, configs: Mapping[str, str]) -> JobSpec:
    arguments = as_arguments({**sweep.options, **job.cells[0].options})
    if job.settings is not None:
        arguments += as_arguments({f"replicas.{name}": values for name, values in job.settings.items()})
    if sweep.wandb is not None:
        # Replaces a logger of the base config, which would not know the group.
        name = job.name if sweep.wandb.name == sweep.name else f"{sweep.name} {job.name}"
        arguments += as_arguments({"trainer.logger": sweep.wandb.logger(name, sweep.name)})
    cells = [(cell.name, dict(cell.options)) for cell in job.cells]
    return JobSpec(job.name, cells, dict(configs), arguments, job.settings is not None, job.reason)
