"""Run one job of a sweep in the calling process."""

import gc
import os
import sys
import threading
import time
import traceback
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lnsgd.console.messages import one_line
from lnsgd.records.jobs import Attempts, JobSpec
from lnsgd.runs.errors import DivergedError
from lnsgd.runs.signals import StopSignals
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.job_result import write_diverged, write_failed, write_result
from lnsgd.sweep.progress import JobProgress
from lnsgd.training.cli import train

_SECONDS_BETWEEN_LOCK_ATTEMPTS = 0.2

# The job that this process attempts now. One thread may take the attempt back while another counts it; the lock keeps
# this list consistent with the count on disk.
_attempted: list[tuple[SweepFolder, str]] = []
_attempted_lock = threading.Lock()


def run_job(folder: Path, job: str, retries: int) -> None:
    """Run a job to its end, resuming it if it was started before, and write its result.

    A job never runs twice at the same time: while another process runs it, this one waits, and then finds it done. An
    attempt is counted on disk before it begins. An attempt that ends in an exception is repeated; an attempt that ended
    with its process is repeated by the next call of this function. When ``1 + retries`` attempts in a row have begun at
    the same checkpoint, the job is given up, and its cells get rows with the error.

    Args:
        folder: The folder of the sweep.
        job: Name of a job that is recorded there.
        retries: The largest number of further attempts that do not advance the run.

    Raises:
        SystemExit: The job was stopped by one of `lnsgd.runs.signals.STOP_SIGNALS`, code 75; this is not counted as an
            attempt.
    """
    sweep = SweepFolder(folder)
    with StopSignals() as signals, _exclusively(sweep, job, signals):
        spec = sweep.read_job(job)
        while not sweep.result(job).exists():
            _exit_if_signalled(signals)
            if sweep.is_given_up(job, retries):
                write_failed(sweep, spec, sweep.read_attempts(job))
                return
            with _counted_attempt(sweep, job) as attempts:
                _attempt(sweep, spec, signals, attempts)


def take_back_attempts() -> None:
    """Remove the current attempt from the count; for a process that ends for a reason that is not the job's."""
    with _attempted_lock:
        while _attempted:
            sweep, job = _attempted.pop()
            if not sweep.result(job).exists():  # which contains the number of attempts
                sweep.take_back_attempt(job)


@contextmanager
def _counted_attempt(sweep: SweepFolder, job: str) -> Iterator[Attempts]:
    """Count an attempt before it begins; yields all attempts, including this one."""
    with _attempted_lock:
        attempts = sweep.count_attempt(job)
        _attempted.append((sweep, job))
    try:
        yield attempts
    except SystemExit:
        take_back_attempts()
        raise
    finally:
        with _attempted_lock:
            _attempted.clear()


def _attempt(sweep: SweepFolder, spec: JobSpec, signals: StopSignals, attempts: Attempts) -> None:
    run = sweep.run(spec.name)
    configs = [part for path in spec.configs for part in ("--config", path)]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    location = [f"--run_dir={run.path.absolute()}", "--ckpt_path=auto"]
    args = ["fit", *configs, *spec.arguments, *quiet, *location]
    try:
        spec.check_configs()
        with _command_line(args):
            train(args, signals, [JobProgress(sweep.progress(spec.name))])
        # Not the attempts on disk: a sweep that is killed at this moment has taken this one back.
        write_result(sweep, spec, attempts)
    except DivergedError as error:
        write_diverged(sweep, spec, attempts, error)
    except Exception as error:
        traceback.print_exc()
        kind = "" if isinstance(error, (ValueError, ArgumentError)) else f"{type(error).__name__}: "
        sweep.note_error(spec.name, kind + one_line(error))
    # Frees what the traceback of the error referred to.
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def _exclusively(sweep: SweepFolder, job: str, signals: StopSignals) -> Iterator[None]:
    """Wait until no other process runs the job, and keep others from running it."""
    while True:
        with sweep.running(job) as locked:
            if locked:
                yield
                return
        _exit_if_signalled(signals)
        time.sleep(_SECONDS_BETWEEN_LOCK_ATTEMPTS)


def _exit_if_signalled(signals: StopSignals) -> None:
    if signals.received:
        raise SystemExit(os.EX_TEMPFAIL)


@contextmanager
def _command_line(args: list[str]) -> Iterator[None]:
    """Set ``sys.argv``, which the further processes of a run on several devices are started with."""
    before = sys.argv
    sys.argv = [str(Path(sys.executable).with_name("lnsgd")), *args]
    try:
        yield
    finally:
        sys.argv = before
