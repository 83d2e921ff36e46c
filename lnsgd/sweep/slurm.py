"""Jobs as tasks of SLURM job arrays."""

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lnsgd.messages import counted
from lnsgd.sweep import submission
from lnsgd.sweep.executor import MEMORY_PART, Executor, Resources
from lnsgd.sweep.folder import SweepFolder, try_lock
from lnsgd.sweep.piece import write_failed
from lnsgd.sweep.slurm_options import SlurmOptions
from lnsgd.sweep.submission import Submission

# Jobs at the same time, where nothing else is asked for.
AT_ONCE = 16

# A GPU's memory, which cannot be seen from where jobs are handed over.
GPU_GIGABYTES = 16.0

_SECONDS_BETWEEN_LOOKS = 0.5

# SLURM's controller serves all users.
_SECONDS_BETWEEN_QUESTIONS = 5.0

# A network file system may show a file this much later than its writer has ended.
_SECONDS_UNTIL_LOST = 10.0

_PROGRAMS = ("sbatch", "squeue", "scancel", "srun")


class SlurmExecutor(Executor):
    """Hands jobs to SLURM as one array and watches them; needs submitit, and a folder that all nodes see.

    A task whose time is nearly up or that is preempted saves its run, is queued again and goes on bit for bit, as often
    as it takes. A task that has ended without a piece of the table (killed, out of memory, a node that failed) is lost:
    that was an attempt, and it is handed over again as long as its run gets further or there are retries left. Which
    tasks SLURM still has is asked from ``squeue``; there need be no accounting.

    The jobs go on when this process ends, whatever ends it. The arrays are remembered in the folder, so that the same
    command watches them again and hands over only what SLURM does not have. This, and not the locks of the folder, is
    what keeps a job from running twice: locks do not reach other nodes on every network file system.

    Args:
        workers: How many jobs run at the same time at most; by default `AT_ONCE`. Of an array of more than
            `lnsgd.sweep.submission.MOST_TASKS` jobs several are made, which share them.
        memory: Gigabytes that a job may fill: of its GPU where it has one, by default `MEMORY_PART` of
            `GPU_GIGABYTES`; else of the memory that it asks for, by default `MEMORY_PART` of it.
        options: What each job gets.
    """

    def __init__(
        self, workers: int | None = None, memory: float | None = None, options: SlurmOptions | None = None
    ) -> None:
        super().__init__(workers or AT_ONCE, memory)
        self.options = options or SlurmOptions()

    def resources(self) -> Resources:
        """That of a task."""
        gpu = self.options.gpus_per_task > 0
        memory = self.memory or MEMORY_PART * (GPU_GIGABYTES if gpu else self.options.mem)
        return Resources(self._at_once, memory * 1e9, gpu)

    def prepare(self) -> None:
        """Sees whether there is a SLURM.

        Raises:
            ValueError: there is none, or no submitit.
        """
        submission.import_submitit()
        for program in _PROGRAMS:
            if shutil.which(program) is None:
                raise ValueError(f"--executor slurm: there is no {program} here; run this where SLURM's commands are")

    def handed_over(self, folder: SweepFolder, jobs: int) -> str:
        """The script for sbatch."""
        at, tasks = submission.slurm_folder(folder), min(jobs, submission.MOST_TASKS)
        name = f"lnsgd-{folder.path.absolute().name}"
        return submission.sbatch_text(self.options, name, at, tasks, self._share(jobs), sys.executable)

    def run(self, folder: SweepFolder, jobs: Sequence[str], retries: int, watch: Callable[[], None]) -> bool:
        """See `Executor.run`; on Ctrl-C the jobs go on."""
        watched = _Watched(folder, jobs, retries, self._hand_over)
        asked_at = float("-inf")
        with _requests_to_leave() as requests:
            while watched.look():
                if requests:
                    _say_goodbye(folder)
                    return False
                if time.monotonic() - asked_at > _SECONDS_BETWEEN_QUESTIONS:
                    watched.ask()
                    asked_at = time.monotonic()
                watch()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        return True

    @property
    def _at_once(self) -> int:
        assert self.workers is not None
        return self.workers

    def _share(self, jobs: int) -> int:
        """How many tasks of one array run at once."""
        return max(1, self._at_once // max(1, -(-jobs // submission.MOST_TASKS)))

    def _hand_over(self, folder: SweepFolder, jobs: Sequence[str], retries: int) -> None:
        for first in range(0, len(jobs), submission.MOST_TASKS):
            part = jobs[first : first + submission.MOST_TASKS]
            made = submission.submit(folder, self.options, part, retries, self._share(len(jobs)))
            are = "is" if len(part) == 1 else "are"
            print(f"lnsgd: {counted(len(part), 'job')} {are} in SLURM's queue as {made.number}", file=sys.stderr)


class _Watched:
    """Jobs until they have their pieces.

    Args:
        folder: The sweep's folder.
        jobs: Their names.
        retries: See `lnsgd.sweep.work.run_job`.
        hand_over: Hands jobs to SLURM.
    """

    def __init__(
        self,
        folder: SweepFolder,
        jobs: Sequence[str],
        retries: int,
        hand_over: Callable[[SweepFolder, Sequence[str], int], None],
    ) -> None:
        self._folder = folder
        self._open = list(jobs)
        self._retries = retries
        self._hand_over = hand_over
        self._seen: set[str] = set()
        self._gone_since: dict[str, float] = {}

    def look(self) -> bool:
        """Whether there are jobs without a piece."""
        # A listing is new where a network file system would remember that a file was not there.
        written = {path.stem for path in self._folder.pieces.glob("[!.]*.parquet")}
        self._open = [job for job in self._open if job not in written]
        if not self._open:
            for array in submission.remembered(self._folder):
                if written.issuperset(array.jobs):
                    submission.forget(self._folder, array)
        return bool(self._open)

    def ask(self) -> None:
        """Asks SLURM what it has, and hands over what it has not; does nothing while another process does so."""
        with _alone(self._folder.handing_over) as alone:
            if not alone:
                return
            arrays = [array for array in submission.remembered(self._folder) if self._is_known(array)]
            states = submission.ask_states(arrays) if arrays else {}
            if states is not None and self.look():
                self._settle(arrays, states)

    def _is_known(self, array: Submission) -> bool:
        """Takes back what somebody began to hand over and did not live to note."""
        if array.number is None and submission.cancel(array):
            submission.forget(self._folder, array)
        return array.number is not None

    def _settle(self, arrays: Sequence[Submission], states: dict[tuple[str, int], str]) -> None:
        last: dict[str, tuple[Submission, str | None]] = {}
        alive: set[str] = set()
        for array in arrays:
            for index, job in enumerate(array.jobs):
                state = states.get((array.name, index))
                last[job] = (array, state)
                if not submission.has_ended(state):
                    alive.add(job)
        self._seen |= alive
        for job in alive:
            self._gone_since.pop(job, None)
        again = []
        for job in self._open:
            if job in alive or (job in last and not self._has_been_gone(job)):
                continue
            if job in last:
                self._gone_since.pop(job)
                self._note_loss(job, *last[job])
            if not self._is_given_up(job):
                again.append(job)
        if again:
            self._hand_over(self._folder, again, self._retries)
            self._seen |= set(again)
        for array in arrays:
            if not any(job in alive or job in self._gone_since for job in array.jobs):
                submission.forget(self._folder, array)

    def _has_been_gone(self, job: str) -> bool:
        since = self._gone_since.setdefault(job, time.monotonic())
        return time.monotonic() - since > _SECONDS_UNTIL_LOST

    def _note_loss(self, job: str, array: Submission, state: str | None) -> None:
        """Notes how an attempt ended that was not there to tell.

        Where nobody watched, a task that was not in the middle of an attempt was no attempt: it was cancelled.
        """
        attempts = self._folder.read_attempts(job)
        if attempts.begun <= len(attempts.errors):
            if job not in self._seen:
                return
            self._folder.count_attempt(job)
        how = "ended" if state is None else f"ended as {state}"
        logs = f"{self._folder.log(job)}, {submission.slurm_folder(self._folder)}/{array.task(job)}_0_log.out"
        self._folder.note_error(job, f"its SLURM task {array.task(job)} {how} without a result; see {logs}")

    def _is_given_up(self, job: str) -> bool:
        if not self._folder.is_given_up(job, self._retries):
            return False
        write_failed(self._folder, self._folder.read_job(job), self._folder.read_attempts(job))
        return True


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        yield try_lock(file)


@contextmanager
def _requests_to_leave() -> Iterator[list[int]]:
    """Notes Ctrl-C, so that nothing is handed over without being remembered; outside a main thread there is none."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _say_goodbye(folder: SweepFolder) -> None:
    numbers = " ".join(array.number for array in submission.remembered(folder) if array.number is not None)
    print(
        f"lnsgd: the jobs go on in SLURM. The same command watches them again; `scancel {numbers}` stops them, from "
        "where the same command goes on",
        file=sys.stderr,
    )
