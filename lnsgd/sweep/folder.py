"""The folder of a sweep: names of its files, and what is recorded of its jobs."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lnsgd.records.jobs import Attempts, JobSpec, read_attempts, read_job, write_attempts, write_job
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.locks import is_locked, locked

# One thread of a process may count an attempt while another takes it back.
_attempts_lock = threading.Lock()


@dataclass(frozen=True)
class SweepFiles:
    """The names of the files of one sweep.

    Attributes:
        path: The folder of the sweep, which need not exist.
    """

    path: Path

    @property
    def sweep(self) -> Path:
        """Copy of the file of the sweep."""
        return self.path / "sweep.yaml"

    @property
    def planned(self) -> Path:
        """Names and options of all cells in the order of the grid."""
        return self.path / "planned.parquet"

    @property
    def results(self) -> Path:
        """Folder of the results, one for each job that has ended."""
        return self.path / "cells"

    @property
    def submissions(self) -> Path:
        """Folder of the records of SLURM job arrays."""
        return self.path / "submissions"

    def result(self, job: str) -> Path:
        """Result of a job: a row for each of its cells, which are complete once it exists."""
        return self.results / f"{job}.parquet"

    def trajectories(self, job: str) -> Path:
        """Every number that a job measured."""
        return self.path / "trajectories" / f"{job}.parquet"

    def job(self, job: str) -> Path:
        """Record of a job, see `lnsgd.records.jobs.JobSpec`."""
        return self.path / "jobs" / f"{job}.json"

    def run(self, job: str) -> RunFolder:
        """Run folder of a job."""
        return RunFolder(self.path / "runs" / job)

    def attempts(self, job: str) -> Path:
        """Record of the attempts at a job, see `lnsgd.records.jobs.Attempts`."""
        return self.path / "attempts" / f"{job}.json"

    def progress(self, job: str) -> Path:
        """Finished fraction of a job."""
        return self.path / "progress" / f"{job}.json"

    def log(self, job: str) -> Path:
        """Output of the processes of a job."""
        return self.path / "logs" / f"{job}.txt"

    def lock(self, name: str) -> Path:
        """File that is locked by whoever runs a job, or works on, plans or submits the sweep."""
        return self.path / "locks" / name


class SweepFolder(SweepFiles):
    """The folder of a sweep: its files, the records of its jobs and attempts, and locks."""

    # -- jobs

    def write_job(self, spec: JobSpec) -> None:
        """Record a job; a file with the same content is left untouched."""
        write_job(spec, self.job(spec.name))

    def read_job(self, job: str) -> JobSpec:
        """Read the record of a job."""
        return read_job(self.job(job))

    def planned_jobs(self) -> list[str]:
        """Return the names of all recorded jobs."""
        return sorted(path.stem for path in self.job("any").parent.glob("[!.]*.json"))

    def forget(self, job: str, is_wanted: Callable[[str], bool]) -> bool:
        """Remove the result and the attempts of a job, so that it runs again; its run folder stays.

        Args:
            job: Name of the job.
            is_wanted: Called when no other process can run the job; returns whether it is still to be forgotten.

        Returns:
            False if another process runs the job, or ``is_wanted`` returned False; then nothing is removed.
        """
        with self.running(job) as is_alone:
            if not (is_alone and is_wanted(job)):
                return False
            # The result is removed last: while it exists, the job counts as failed, and can be forgotten again.
            for path in (self.attempts(job), self.progress(job), self.trajectories(job), self.result(job)):
                path.unlink(missing_ok=True)
            return True

    # -- attempts

    def begun(self, job: str) -> bool:
        """Return whether a job was ever started."""
        return self.attempts(job).exists()

    def read_attempts(self, job: str) -> Attempts:
        """Read the attempts at a job so far."""
        return read_attempts(self.attempts(job))

    def count_attempt(self, job: str) -> Attempts:
        """Count one more attempt, which begins at the newest checkpoint of the job's run."""
        with _attempts_lock:
            attempts = self.read_attempts(job)
            attempts.starts.append(step_reached(self.run(job)))
            write_attempts(attempts, self.attempts(job))
            return attempts

    def take_back_attempt(self, job: str) -> None:
        """Remove the last attempt from the count."""
        with _attempts_lock:
            attempts = self.read_attempts(job)
            attempts.starts.pop()
            write_attempts(attempts, self.attempts(job))

    def is_given_up(self, job: str, retries: int) -> bool:
        """Return whether the last ``1 + retries`` attempts at a job did not advance its run."""
        attempts = self.read_attempts(job)
        # Most jobs were started at most once, and their checkpoints need not be read.
        return attempts.begun > retries and attempts.without_progress(step_reached(self.run(job))) > retries

    def note_error(self, job: str, error: str) -> None:
        """Record how an attempt ended."""
        with _attempts_lock:
            attempts = self.read_attempts(job)
            attempts.errors.append(error)
            write_attempts(attempts, self.attempts(job))

    # -- locks

    def is_running(self, job: str) -> bool:
        """Return whether a process runs a job now; read permission is enough to ask."""
        return is_locked(self.lock(job))

    def running(self, job: str) -> AbstractContextManager[bool]:
        """Lock a job in a context, unless another process runs it; yields whether it is locked now."""
        return locked(self.lock(job))

    def others_at_work(self) -> bool:
        """Return whether another ``lnsgd sweep`` works in this folder; not to be called within `working`."""
        return is_locked(self.lock("sweep"), shared=True)

    def working(self) -> AbstractContextManager[bool]:
        """Show others, in a context, that this process works in the folder."""
        return locked(self.lock("sweep"), shared=True, wait=True)

    def submitting(self) -> AbstractContextManager[bool]:
        """Lock the submission of jobs in a context, unless another process submits; yields whether it is locked."""
        return locked(self.lock("submissions"))

    def planning(self) -> AbstractContextManager[bool]:
        """Wait until no other process plans and writes jobs, and keep others from it in a context."""
        return locked(self.lock("planning"), wait=True)


def step_reached(run: RunFolder) -> int:
    """Return the step of a run's newest intact checkpoint; 0 if there is none."""
    # Imported here, because it takes seconds to import, and a table does not need it.
    from lnsgd.runs.resume import find_newest

    return find_newest(run).step
