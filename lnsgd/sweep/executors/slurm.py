"""The executor that runs jobs as tasks of SLURM job arrays."""

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from lnsgd.console.messages import counted
from lnsgd.records.submissions import JobArray, read_submissions, remove_submission
from lnsgd.sweep.executors import slurm_arrays
from lnsgd.sweep.executors.base import MEMORY_FRACTION, Executor, Resources
from lnsgd.sweep.executors.slurm_options import SlurmOptions
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.job_result import write_failed

# The default number of jobs that run at the same time.
AT_ONCE = 16

# The assumed memory of a GPU, which cannot be read where jobs are submitted.
GPU_GIGABYTES = 16.0

_SECONDS_BETWEEN_CHECKS = 0.5

# SLURM's controller serves all users, so it is not asked more often.
_SECONDS_BETWEEN_QUERIES = 5.0

# A network file system may show a file this long after its writer has ended.
_SECONDS_UNTIL_LOST = 10.0

_PROGRAMS = ("sbatch", "squeue", "scancel", "srun")


class SlurmExecutor(Executor):
    """An executor that submits jobs to SLURM as an array and watches them.

    It needs submitit, and a folder that all nodes share.

    A task whose time is nearly up, or that is preempted, saves its run, is queued again and resumes bit for bit, as
    often as needed. A task that has ended without a result (killed, out of memory, a failed node) is lost: this counts
    as an attempt, and the job is submitted again as long as its run advances or retries are left. ``squeue`` tells
    which tasks SLURM still has; accounting is not needed.

    The jobs continue when this process ends, whatever ends it. The arrays are recorded in the folder, so that the same
    command watches them again and submits only the jobs that SLURM does not have. These records, not the locks of the
    folder, keep a job from running twice: on some network file systems locks do not reach other nodes.

    Args:
        workers: The largest number of jobs that run at the same time; by default `AT_ONCE`. More than
            `lnsgd.sweep.executors.slurm_arrays.MAX_TASKS` jobs become several arrays, which share the workers.
        memory: Gigabytes that a job may take. With a GPU, of the GPU, by default `MEMORY_FRACTION` of `GPU_GIGABYTES`;
            otherwise of the memory that the job requests, by default `MEMORY_FRACTION` of it.
        options: The resources of each job.
    """

    def __init__(
        self, workers: int | None = None, memory: float | None = None, options: SlurmOptions | None = None
    ) -> None:
        super().__init__(workers or AT_ONCE, memory)
        self.options = options or SlurmOptions()

    def resources(self) -> Resources:
        """Return the resources of a task."""
        gpu = self.options.gpus_per_task > 0
        memory = self.memory or MEMORY_FRACTION * (GPU_GIGABYTES if gpu else self.options.mem)
        return Resources(self._at_once, memory * 1e9, gpu)

    def prepare(self) -> None:
        """Check that SLURM is available.

        Raises:
            ValueError: SLURM or submitit is not installed.
        """
        slurm_arrays.import_submitit()
        for program in _PROGRAMS:
            if shutil.which(program) is None:
                raise ValueError(
                    f"--executor slurm: the program {program} is not installed; run this on a machine with SLURM"
                )

    def submission_script(self, folder: SweepFolder, jobs: int) -> str:
        """Return the script for sbatch."""
        at, tasks = slurm_arrays.slurm_folder(folder), min(jobs, slurm_arrays.MAX_TASKS)
        name = f"lnsgd-{folder.path.absolute().name}"
        return slurm_arrays.sbatch_text(self.options, name, at, tasks, self._at_once_per_array(jobs), sys.executable)

    def run(self, folder: SweepFolder, jobs: Sequence[str], retries: int, watch: Callable[[], None]) -> bool:
        """Run jobs until each has a result; see `Executor.run`. After Ctrl-C the jobs continue."""
        monitor = _JobMonitor(folder, jobs, retries, self._submit)
        asked_at = float("-inf")
        with _interruptions() as interruptions:
            while monitor.has_open_jobs():
                if interruptions:
                    _report_jobs_left(folder)
                    return False
                if time.monotonic() - asked_at > _SECONDS_BETWEEN_QUERIES:
                    monitor.ask_slurm()
                    asked_at = time.monotonic()
                watch()
                time.sleep(_SECONDS_BETWEEN_CHECKS)
        return True

    @property
    def _at_once(self) -> int:
        assert self.workers is not None
        return self.workers

    def _at_once_per_array(self, jobs: int) -> int:
        return max(1, self._at_once // max(1, -(-jobs // slurm_arrays.MAX_TASKS)))

    def _submit(self, folder: SweepFolder, jobs: Sequence[str], retries: int) -> None:
        for first in range(0, len(jobs), slurm_arrays.MAX_TASKS):
            part = jobs[first : first + slurm_arrays.MAX_TASKS]
            made = slurm_arrays.submit(folder, self.options, part, retries, self._at_once_per_array(len(jobs)))
            are = "is" if len(part) == 1 else "are"
            print(f"lnsgd: {counted(len(part), 'job')} {are} in SLURM's queue as {made.number}", file=sys.stderr)


class _JobMonitor:
    """The state of the jobs, as SLURM and their results show it; submits jobs that SLURM does not have.

    Args:
        folder: The folder of the sweep.
        jobs: Names of the jobs.
        retries: See `lnsgd.sweep.job_runner.run_job`.
        submit: Submits jobs to SLURM.
    """

    def __init__(
        self,
        folder: SweepFolder,
        jobs: Sequence[str],
        retries: int,
        submit: Callable[[SweepFolder, Sequence[str], int], None],
    ) -> None:
        self._folder = folder
        self._open = list(jobs)
        self._retries = retries
        self._submit = submit
        self._seen: set[str] = set()
        self._gone_since: dict[str, float] = {}

    def has_open_jobs(self) -> bool:
        """Return whether there are jobs without a result."""
        # A network file system may remember that a file does not exist, but lists its folder anew.
        written = {path.stem for path in self._folder.results.glob("[!.]*.parquet")}
        self._open = [job for job in self._open if job not in written]
        if not self._open:
            for array in read_submissions(self._folder.submissions):
                if written.issuperset(array.jobs):
                    remove_submission(self._folder.submissions, array)
        return bool(self._open)

    def ask_slurm(self) -> None:
        """Ask SLURM which tasks it has, and submit the others; do nothing while another process does this."""
        with self._folder.submitting() as is_alone:
            if not is_alone:
                return
            arrays = [array for array in read_submissions(self._folder.submissions) if self._is_submitted(array)]
            states = slurm_arrays.ask_states(arrays) if arrays else {}
            if states is not None and self.has_open_jobs():
                self._update(arrays, states)

    def _is_submitted(self, array: JobArray) -> bool:
        """Return whether an array has a number; cancel it if its submission was interrupted before that."""
        if array.number is None and slurm_arrays.cancel(array):
            remove_submission(self._folder.submissions, array)
        return array.number is not None

    def _update(self, arrays: Sequence[JobArray], states: dict[tuple[str, int], str]) -> None:
        last: dict[str, tuple[JobArray, str | None]] = {}
        alive: set[str] = set()
        for array in arrays:
            for index, job in enumerate(array.jobs):
                state = states.get((array.name, index))
                last[job] = (array, state)
                if not slurm_arrays.has_ended(state):
                    alive.add(job)
        self._seen |= alive
        for job in alive:
            self._gone_since.pop(job, None)
        again = []
        for job in self._open:
            if job in alive or (job in last and not self._is_lost(job)):
                continue
            if job in last:
                self._gone_since.pop(job)
                self._note_loss(job, *last[job])
            if not self._is_given_up(job):
                again.append(job)
        if again:
            self._submit(self._folder, again, self._retries)
            self._seen |= set(again)
        for array in arrays:
            if not any(job in alive or job in self._gone_since for job in array.jobs):
                remove_submission(self._folder.submissions, array)

    def _is_lost(self, job: str) -> bool:
        since = self._gone_since.setdefault(job, time.monotonic())
        return time.monotonic() - since > _SECONDS_UNTIL_LOST

    def _note_loss(self, job: str, array: JobArray, state: str | None) -> None:
        """Record how an attempt ended whose process could not record it.

        A task that was not watched and had not begun an attempt does not count: it was cancelled.
        """
        attempts = self._folder.read_attempts(job)
        if attempts.begun <= len(attempts.errors):
            if job not in self._seen:
                return
            self._folder.count_attempt(job)
        how = "ended" if state is None else f"ended as {state}"
        logs = f"{self._folder.log(job)}, {slurm_arrays.slurm_folder(self._folder)}/{array.task(job)}_0_log.out"
        self._folder.note_error(job, f"its SLURM task {array.task(job)} {how} without a result; see {logs}")

    def _is_given_up(self, job: str) -> bool:
        if not self._folder.is_given_up(job, self._retries):
            return False
        write_failed(self._folder, self._folder.read_job(job), self._folder.read_attempts(job))
        return True


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Collect Ctrl-C in a list, so that no submission stays unrecorded; outside the main thread it stays empty."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


def _report_jobs_left(folder: SweepFolder) -> None:
    numbers = " ".join(array.number for array in read_submissions(folder.submissions) if array.number is not None)
    print(
        "lnsgd: the jobs continue in SLURM. Run the same command again to watch them. To stop them at a checkpoint, "
        f"run `scancel {numbers}`; the same command resumes them",
        file=sys.stderr,
    )
