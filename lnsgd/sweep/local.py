"""Jobs as processes of this machine."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType

import torch

from lnsgd.stop_signals import STOP_SIGNALS
from lnsgd.sweep.executor import MEMORY_PART, Executor, Resources, gpu_memory, machine_memory
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.work import run_job, take_back_attempts

# What jobs import: imported once, in the process that they are forked from.
_PRELOADED = ["lnsgd.sweep.work", "lnsgd.replicas.kernel_loops", "pyarrow.parquet"]

_SECONDS_BETWEEN_LOOKS = 0.5

# Memory below which no further job is started beside others: about what one takes with a small data set.
_JOB_BYTES = 2e9


@dataclass(frozen=True)
class _Place:
    """What one job at a time runs on: some threads, and a GPU as CUDA_VISIBLE_DEVICES names it."""

    threads: int
    gpu: str | None


@dataclass(frozen=True)
class _Running:
    job: str
    place: _Place
    attempts: int
    process: ForkServerProcess


class LocalExecutor(Executor):
    """Runs jobs as processes of this machine: GPUs are given out in turn, threads are divided.

    By default two jobs run on each GPU, or on a CPU one on each core, as long as each has `_JOB_BYTES`: jobs share
    nothing, while threads of one job wait for each other. A Ctrl-C (or SIGTERM, SIGUSR1, SIGUSR2)
    lets all jobs stop, from where they can go on; a second one kills them. They die with this process too, whatever
    ends it. A process that dies otherwise is an attempt, and the job begins again as long as its run gets further or
    there are retries left.

    How many threads a job has does not depend on how many jobs are left, since what is measured depends on it in its
    last bits.
    """

    def resources(self) -> Resources:
        """A share of this machine."""
        gpus = torch.cuda.device_count()
        memory = self.memory * 1e9 if self.memory else MEMORY_PART * (gpu_memory() if gpus else machine_memory())
        if gpus:
            at_once = self.workers or 2 * gpus
            return Resources(at_once, memory / -(-at_once // gpus), gpu=True)
        at_once = self.workers or max(1, min(_cores(), int(memory // _JOB_BYTES)))
        return Resources(at_once, memory / at_once, gpu=False)

    def prepare(self) -> None:
        """Starts the process that jobs are forked from, which takes seconds to import what they need."""
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
        # It and all jobs ignore Ctrl-C, which a terminal sends to all: this process says what follows from it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)

    def run(self, folder: SweepFolder, jobs: Sequence[str], retries: int, watch: Callable[[], None]) -> bool:
        """See `Executor.run`."""
        self.prepare()
        crew = _Crew(folder, jobs, retries, self._places(len(jobs)))
        with _requests_to_stop() as requests:
            answered = 0
            while crew.busy:
                while answered < len(requests):
                    answered += 1
                    crew.stop(at_once=answered > 1)
                crew.start()
                crew.wait()
                watch()
        return not requests

    def _places(self, jobs: int) -> list[_Place]:
        at_once = self.resources().at_once
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        count = torch.cuda.device_count()
        names = gpus if len(gpus) == count else [str(number) for number in range(count)]
        threads = max(1, _cores() // at_once)
        places = range(min(at_once, max(1, jobs)))
        return [_Place(threads, names[number % count] if count else None) for number in places]


class _Crew:
    """The processes at work.

    Args:
        folder: The sweep's folder.
        jobs: What they are to do.
        retries: See `lnsgd.sweep.work.run_job`.
        places: What they run on, one job at a time on each.
    """

    def __init__(self, folder: SweepFolder, jobs: Sequence[str], retries: int, places: list[_Place]) -> None:
        self._folder = folder
        self._retries = retries
        self._waiting = deque(jobs)
        self._free = places
        self._running: list[_Running] = []
        self._uncounted = Counter[str]()
        self._stopping = False

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._waiting or self._running)

    def start(self) -> None:
        """Starts jobs where there is a place; those that another sweep runs wait for it."""
        for _ in range(len(self._waiting)):
            if not self._free:
                return
            job = self._waiting.popleft()
            # A job that neither ends nor counts its attempts, say because the disk is full, is left to another time.
            if self._folder.piece(job).exists() or self._uncounted[job] > self._retries + 1:
                continue
            if self._folder.is_running(job):
                self._waiting.append(job)
                continue
            self._uncounted[job] += 1
            place, before = self._free.pop(0), self._folder.read_attempts(job).begun
            process = multiprocessing.get_context("forkserver").Process(
                target=_work, args=(self._folder.path, job, self._retries, place), name=f"lnsgd job {job}"
            )
            process.start()
            self._running.append(_Running(job, place, before, process))

    def stop(self, at_once: bool) -> None:
        """Tells all processes to stop where they can go on, or kills them; nothing is started any more."""
        self._stopping = True
        self._waiting.clear()
        for running in self._running:
            running.process.kill() if at_once else running.process.terminate()

    def wait(self) -> None:
        """Waits for a process to end, for a moment."""
        if not self._running:
            time.sleep(_SECONDS_BETWEEN_LOOKS if self._waiting else 0)
            return
        wait([running.process.sentinel for running in self._running], timeout=_SECONDS_BETWEEN_LOOKS)
        for ended in [running for running in self._running if running.process.exitcode is not None]:
            self._running.remove(ended)
            self._free.append(ended.place)
            if not self._folder.piece(ended.job).exists():
                self._account_for(ended)

    def _account_for(self, ended: _Running) -> None:
        """Lets a job begin again whose process ended before it; says in the record of its attempts why it died."""
        code = ended.process.exitcode
        assert code is not None
        counted = self._folder.read_attempts(ended.job).begun - ended.attempts
        if self._stopping:
            # Killed on request. Unless somebody else has begun the job since: then that attempt was counted.
            with self._folder.running(ended.job) as locked:
                if locked and counted > 0:
                    self._folder.take_back_attempt(ended.job)
            return
        self._waiting.appendleft(ended.job)
        if code == os.EX_TEMPFAIL:  # stopped by somebody else
            return
        if counted > 0:
            del self._uncounted[ended.job]
        else:  # it died before it could count itself
            self._folder.count_attempt(ended.job)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        self._folder.note_error(ended.job, f"its process {how}{hint}; see {self._folder.log(ended.job)}")


@contextmanager
def _requests_to_stop() -> Iterator[list[int]]:
    """Notes Ctrl-C and signals that ask to stop; outside a main thread there are none."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if len(noted) == 1:
            print("lnsgd: stopping all jobs where they can go on; once more kills them", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, *STOP_SIGNALS)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(folder: Path, job: str, retries: int, place: _Place) -> None:
    """What a job's process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    path = SweepFolder(folder).log(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    os.environ["OMP_NUM_THREADS"] = str(place.threads)
    torch.set_num_threads(place.threads)
    run_job(folder, job, retries)


def _die_with_parent() -> None:
    """Ends this process with the one that started it; this is not the job's fault, and no attempt."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    take_back_attempts()
    os._exit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
