"""What a sweep leaves on disk."""

import errno
import fcntl
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from lnsgd.run_folder import RunFolder
from lnsgd.sweep.attempts import Attempts, step_reached
from lnsgd.untrusted.tables import naming, read_record
from lnsgd.writing import whole_file

# What a file system without locks answers.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

# A process may count an attempt in one thread while another takes it back.
_attempts_lock = threading.Lock()


@dataclass(frozen=True)
class JobSpec:
    """A job as it is kept: all that the process that runs it needs to know.

    Attributes:
        name: Its name.
        cells: Name and options of each cell, in the order of the replicas.
        configs: Base configs, and a hash of what they said when the job was planned.
        arguments: Further arguments of ``lnsgd fit``.
        replicated: Whether the cells are replicas of one run; otherwise there is one cell, an ordinary run.
        reason: Why the cells were packed in this way.
    """

    name: str
    cells: list[tuple[str, dict[str, Any]]]
    configs: dict[str, str]
    arguments: list[str]
    replicated: bool
    reason: str

    def check_configs(self) -> None:
        """Raises ValueError where a base config is not what it was: the cells would be other runs than they say."""
        for path, before in self.configs.items():
            if config_hash(Path(path)) != before:
                raise ValueError(
                    f"{path} has changed since the sweep was planned; run `lnsgd sweep` again with --retry-failed"
                )


def config_hash(path: Path) -> str:
    """Hash of a file; empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


@dataclass(frozen=True)
class SweepFolder:
    """Names of the files of one sweep, and what is done to them."""

    path: Path

    @property
    def sweep(self) -> Path:
        """Copy of the sweep's file."""
        return self.path / "sweep.yaml"

    @property
    def planned(self) -> Path:
        """Names and options of all cells in the grid's order."""
        return self.path / "planned.parquet"

    @property
    def pieces(self) -> Path:
        """Folder of the pieces of the table, one for each job that has ended."""
        return self.path / "cells"

    @property
    def at_work(self) -> Path:
        """Locked by everyone who works on this sweep."""
        return self.path / "locks" / "sweep"

    @property
    def being_planned(self) -> Path:
        """Locked by whoever plans and writes jobs."""
        return self.path / "locks" / "planning"

    @property
    def submissions(self) -> Path:
        """Folder of what was handed to SLURM, a file for each job array."""
        return self.path / "submissions"

    @property
    def handing_over(self) -> Path:
        """Locked by whoever hands jobs to SLURM."""
        return self.path / "locks" / "submissions"

    def piece(self, job: str) -> Path:
        """A job's piece of the table: with it its cells are complete."""
        return self.pieces / f"{job}.parquet"

    def trajectories(self, job: str) -> Path:
        """Every number that a job measured."""
        return self.path / "trajectories" / f"{job}.parquet"

    def job(self, job: str) -> Path:
        """What a job is, see `JobSpec`."""
        return self.path / "jobs" / f"{job}.json"

    def run(self, job: str) -> RunFolder:
        """A job's run, an ordinary run folder."""
        return RunFolder(self.path / "runs" / job)

    def attempts(self, job: str) -> Path:
        """See `lnsgd.sweep.attempts.Attempts`."""
        return self.path / "attempts" / f"{job}.json"

    def progress(self, job: str) -> Path:
        """How far a job is."""
        return self.path / "progress" / f"{job}.json"

    def log(self, job: str) -> Path:
        """What a job's processes print."""
        return self.path / "logs" / f"{job}.txt"

    def lock(self, job: str) -> Path:
        """Locked while a job runs."""
        return self.path / "locks" / job

    # -- jobs

    def write_job(self, spec: JobSpec) -> None:
        """Keeps a job; leaves the file alone where it says the same."""
        text = json.dumps(asdict(spec), indent=1, ensure_ascii=False) + "\n"
        if self.job(spec.name).exists() and self.job(spec.name).read_text() == text:
            return
        with whole_file(self.job(spec.name)) as part:
            part.write_text(text)

    def read_job(self, job: str) -> JobSpec:
        """A job that is kept."""
        path = self.job(job)
        given = read_record(path, {"cells": list})
        with naming(path):
            return JobSpec(**{**given, "cells": [(name, options) for name, options in given["cells"]]})

    def planned_jobs(self) -> list[str]:
        """Names of all jobs that are kept."""
        return sorted(path.stem for path in self.job("any").parent.glob("[!.]*.json"))

    def begun(self, job: str) -> bool:
        """Whether somebody has run a job, to its end or not."""
        return self.attempts(job).exists()

    # -- attempts

    def read_attempts(self, job: str) -> Attempts:
        """The attempts at a job so far."""
        path = self.attempts(job)
        if not path.exists():
            return Attempts()
        given = read_record(path, {"starts": list, "errors": list})
        return Attempts(given["starts"], given["errors"])

    def count_attempt(self, job: str) -> Attempts:
        """Counts one more attempt, from where the job's run stands."""
        with _attempts_lock:
            attempts = self.read_attempts(job)
            attempts.starts.append(step_reached(self.run(job)))
            self._write_attempts(job, attempts)
            return attempts

    def take_back_attempt(self, job: str) -> None:
        """Lets the last attempt be none."""
        with _attempts_lock:
            attempts = self.read_attempts(job)
            attempts.starts.pop()
            self._write_attempts(job, attempts)

    def is_given_up(self, job: str, retries: int) -> bool:
        """Whether the last ``1 + retries`` attempts at a job have got its run no further."""
        attempts = self.read_attempts(job)
        # Most jobs were begun once at most: their checkpoints need not be read.
        return attempts.begun > retries and attempts.in_vain(step_reached(self.run(job))) > retries

    def note_error(self, job: str, error: str) -> None:
        """Notes how an attempt ended."""
        with _attempts_lock:
            attempts = self.read_attempts(job)
            attempts.errors.append(error)
            self._write_attempts(job, attempts)

    def _write_attempts(self, job: str, attempts: Attempts) -> None:
        with whole_file(self.attempts(job)) as part:
            part.write_text(json.dumps(asdict(attempts), ensure_ascii=False) + "\n")

    def forget(self, job: str, if_still: Callable[[str], bool]) -> bool:
        """Removes a job's piece and attempts, so that it is run again; what its run has left stays.

        Args:
            job: Its name.
            if_still: Asked once nobody else can run the job: whether there is still a reason to forget it.

        Returns:
            False where somebody runs the job now, or there is no reason any more; then nothing is removed.
        """
        with self.running(job) as locked:
            if not (locked and if_still(job)):
                return False
            # The piece goes last: as long as it is there, the job counts as one that has failed and can be forgotten.
            for path in (self.attempts(job), self.progress(job), self.trajectories(job), self.piece(job)):
                path.unlink(missing_ok=True)
            return True

    # -- locks, which the system frees when their process dies

    def is_running(self, job: str) -> bool:
        """Whether some process runs a job now; may be asked of a folder that one can only read."""
        path = self.lock(job)
        if not path.exists():
            return False
        with path.open() as file:
            return not try_lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def others_at_work(self) -> bool:
        """Whether another ``lnsgd sweep`` works in this folder. Not to be asked within `working`."""
        if not self.at_work.exists():
            return False
        with self.at_work.open("a") as file:
            return not try_lock(file)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Lets others know that somebody works in this folder."""
        self.at_work.parent.mkdir(parents=True, exist_ok=True)
        with self.at_work.open("a") as file:
            try_lock(file, fcntl.LOCK_SH)
            yield

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Waits until nobody else plans and writes jobs here, and keeps others from it."""
        self.being_planned.parent.mkdir(parents=True, exist_ok=True)
        with self.being_planned.open("a") as file:
            try_lock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def running(self, job: str) -> Iterator[bool]:
        """Locks a job, if nobody else has; gives whether it is locked now."""
        self.lock(job).parent.mkdir(parents=True, exist_ok=True)
        with self.lock(job).open("a") as file:
            yield try_lock(file)


def try_lock(file: IO[str], how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> bool:
    """Locks a file until it is closed, if nobody else has; gives whether it is locked now.

    Where the file system has no locks, as some of a cluster, nobody is kept out.
    """
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
