"""The executor that runs jobs as processes of this machine."""

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

from lnsgd.runs.signals import STOP_SIGNALS
from lnsgd.sweep.executors.base import MEMORY_FRACTION, Executor, Resources, gpu_memory, machine_memory
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.job_runner import run_job, take_back_attempts

# Modules that jobs use; they are imported once, in the process that jobs are forked from.
_PRELOADED = ["lnsgd.sweep.job_runner", "lnsgd.replicas.engines.mlp_loops", "pyarrow.parquet"]

_SECONDS_BETWEEN_CHECKS = 0.5

# Memory that must be available for each further job: about what a job takes with a small data set.
_JOB_BYTES = 2e9


@dataclass(frozen=True)
class _Slot:
    """The resources of one job at a time: a number of threads, and a GPU as named in CUDA_VISIBLE_DEVICES."""

    threads: int
    gpu: str | None


@dataclass(frozen=True)
class _RunningJob:
    job: str
    slot: _Slot
    attempts: int
    process: ForkServerProcess


class LocalExecutor(Executor):
    """An executor that runs jobs as processes of this machine: GPUs are assigned in turn, threads are divided.

    By default two jobs run on each GPU or, without GPUs, one job on each core, as long as each has `_JOB_BYTES`. Jobs
    are independent of each other, whereas the threads of one job wait for each other. Ctrl-C, SIGTERM, SIGUSR1 and
    SIGUSR2 stop all jobs at a checkpoint from which they can resume; a second signal kills them. Jobs also end with
    this process, whatever ends it. A process that ends in another way counts as an attempt, and the job starts again
    as long as its run advances or retries are left.

    The number of threads of a job does not depend on how many jobs are left, because the last bits of the results
    depend on it.
    """

    def resources(self) -> Resources:
        """Return the share of one job in this machine."""
        gpus = torch.cuda.device_count()
        memory = self.memory * 1e9 if self.memory else MEMORY_FRACTION * (gpu_memory() if gpus else machine_memory())
        if gpus:
            at_once = self.workers or 2 * gpus
            return Resources(at_once, memory / -(-at_once // gpus), gpu=True)
        at_once = self.workers or max(1, min(_count_cores(), int(memory // _JOB_BYTES)))
        return Resources(at_once, memory / at_once, gpu=False)

    def prepare(self) -> None:
        """Start the process that jobs are forked from, which takes seconds to import what they need."""
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
        # That process and all jobs ignore Ctrl-C, which a terminal sends to all; this process decides what happens.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)

    def run(self, folder: SweepFolder, jobs: Sequence[str], retries: int, watch: Callable[[], None]) -> bool:
        """Run jobs until each has a result; see `Executor.run`."""
        self.prepare()
        pool = _JobPool(folder, jobs, retries, self._slots(len(jobs)))
        with _stop_requests() as requests:
            answered = 0
            while pool.is_busy:
                while answered < len(requests):
                    answered += 1
                    pool.stop(kill=answered > 1)
                pool.start_jobs()
                pool.wait()
                watch()
        return not requests

    def _slots(self, jobs: int) -> list[_Slot]:
        at_once = self.resources().at_once
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        count = torch.cuda.device_count()
        names = gpus if len(gpus) == count else [str(number) for number in range(count)]
        threads = max(1, _count_cores() // at_once)
        slots = range(min(at_once, max(1, jobs)))
        return [_Slot(threads, names[number % count] if count else None) for number in slots]


class _JobPool:
    """The processes of the jobs.

    Args:
        folder: The folder of the sweep.
        jobs: Names of the jobs to run.
        retries: See `lnsgd.sweep.job_runner.run_job`.
        slots: The resources; each slot runs one job at a time.
    """

    def __init__(self, folder: SweepFolder, jobs: Sequence[str], retries: int, slots: list[_Slot]) -> None:
        self._folder = folder
        self._retries = retries
        self._waiting = deque(jobs)
        self._free = slots
        self._running: list[_RunningJob] = []
        self._uncounted = Counter[str]()
        self._stopping = False

    @property
    def is_busy(self) -> bool:
        """Whether a job is running or waiting."""
        return bool(self._waiting or self._running)

    def start_jobs(self) -> None:
        """Start jobs in free slots; jobs that another sweep runs stay waiting."""
        for _ in range(len(self._waiting)):
            if not self._free:
                return
            job = self._waiting.popleft()
            # A job that neither ends nor counts its attempts, for example because the disk is full, is left out.
            if self._folder.result(job).exists() or self._uncounted[job] > self._retries + 1:
                continue
            if self._folder.is_running(job):
                self._waiting.append(job)
                continue
            self._uncounted[job] += 1
            slot, before = self._free.pop(0), self._folder.read_attempts(job).begun
            process = multiprocessing.get_context("forkserver").Process(
                target=_run_in_process, args=(self._folder.path, job, self._retries, slot), name=f"lnsgd job {job}"
            )
            process.start()
            self._running.append(_RunningJob(job, slot, before, process))

    def stop(self, kill: bool) -> None:
        """Ask all processes to stop at a checkpoint, or kill them; no further job is started."""
        self._stopping = True
        self._waiting.clear()
        for running in self._running:
            running.process.kill() if kill else running.process.terminate()

    def wait(self) -> None:
        """Wait a moment for a process to end."""
        if not self._running:
            time.sleep(_SECONDS_BETWEEN_CHECKS if self._waiting else 0)
            return
        wait([running.process.sentinel for running in self._running], timeout=_SECONDS_BETWEEN_CHECKS)
        for ended in [running for running in self._running if running.process.exitcode is not None]:
            self._running.remove(ended)
            self._free.append(ended.slot)
            if not self._folder.result(ended.job).exists():
                self._handle_early_end(ended)

    def _handle_early_end(self, ended: _RunningJob) -> None:
        """Start a job again if its process ended without a result, and record the cause among its attempts."""
        code = ended.process.exitcode
        assert code is not None
        counted = self._folder.read_attempts(ended.job).begun - ended.attempts
        if self._stopping:
            # Killed on request. If another process has begun the job since, the attempt that was counted is its own.
            with self._folder.running(ended.job) as locked:
                if locked and counted > 0:
                    self._folder.take_back_attempt(ended.job)
            return
        self._waiting.appendleft(ended.job)
        if code == os.EX_TEMPFAIL:  # stopped by another process
            return
        if counted > 0:
            del self._uncounted[ended.job]
        else:  # it ended before it could count itself
            self._folder.count_attempt(ended.job)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        self._folder.note_error(ended.job, f"its process {how}{hint}; see {self._folder.log(ended.job)}")


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect Ctrl-C and the stop signals in a list; outside the main thread the list stays empty."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            print("lnsgd: stopping all jobs at a checkpoint; press Ctrl-C again to kill them", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, *STOP_SIGNALS)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_in_process(folder: Path, job: str, retries: int, slot: _Slot) -> None:
    """Run a job; the entry point of its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    path = SweepFolder(folder).log(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)
    torch.set_num_threads(slot.threads)
    run_job(folder, job, retries)


def _exit_with_parent() -> None:
    """Wait until the parent process ends, then end this process without counting an attempt."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    take_back_attempts()
    os._exit(1)


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
