"""Runs one job of a sweep, in the process that calls it."""

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

from lnsgd.messages import one_line
from lnsgd.run_errors import DivergedError
from lnsgd.stop_signals import StopSignals
from lnsgd.sweep.attempts import Attempts
from lnsgd.sweep.folder import JobSpec, SweepFolder
from lnsgd.sweep.piece import write_diverged, write_failed, write_piece
from lnsgd.sweep.progress import SweepProgress
from lnsgd.training import train

_SECONDS_BETWEEN_LOOKS = 0.2

# The job that this process attempts now. One thread may take the attempt back while another counts it: the lock keeps
# the count on disk and this list together.
_attempted: list[tuple[SweepFolder, str]] = []
_attempted_lock = threading.Lock()


def run_job(folder: Path, job: str, retries: int) -> None:
    """Runs a job to its end, from where it stands, and writes its piece of the table.

    Never does so twice at once: while another process runs the job this one waits, and finds it done. An attempt is
    counted on disk before it begins. What ends in an exception is tried again; so is, when this is called again, what
    ended with the process. When ``1 + retries`` attempts in a row have begun at the same checkpoint, the job is given
    up: its cells are rows with the error.

    Args:
        folder: The sweep's folder.
        job: Name of a job that is kept there.
        retries: Attempts at most that get the run no further, beyond the first.

    Raises:
        SystemExit: stopped on request by one of `lnsgd.stop_signals.STOP_SIGNALS`, code 75; this is no attempt.
    """
    sweep = SweepFolder(folder)
    with StopSignals() as signals, _alone(sweep, job, signals):
        spec = sweep.read_job(job)
        while not sweep.piece(job).exists():
            _leave_if_asked(signals)
            if sweep.is_given_up(job, retries):
                write_failed(sweep, spec, sweep.read_attempts(job))
                return
            with _counted(sweep, job) as attempts:
                _try(sweep, spec, signals, attempts)


def take_back_attempts() -> None:
    """For a process that is about to die through no fault of its job: what it attempts now was no attempt."""
    with _attempted_lock:
        while _attempted:
            sweep, job = _attempted.pop()
            if not sweep.piece(job).exists():  # which says how many there were
                sweep.take_back_attempt(job)


@contextmanager
def _counted(sweep: SweepFolder, job: str) -> Iterator[Attempts]:
    """Counts an attempt before it begins; gives all attempts, this one included."""
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


def _try(sweep: SweepFolder, spec: JobSpec, signals: StopSignals, attempts: Attempts) -> None:
    run = sweep.run(spec.name)
    configs = [part for path in spec.configs for part in ("--config", path)]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    place = [f"--run_dir={run.path.absolute()}", "--ckpt_path=auto"]
    args = ["fit", *configs, *spec.arguments, *quiet, *place]
    try:
        spec.check_configs()
        with _command_line(args):
            train(args, signals, [SweepProgress(sweep.progress(spec.name))])
        # Not those on disk: a sweep that dies at this moment has taken this one back.
        write_piece(sweep, spec, attempts)
    except DivergedError as error:
        write_diverged(sweep, spec, attempts, error)
    except Exception as error:
        traceback.print_exc()
        kind = "" if isinstance(error, (ValueError, ArgumentError)) else f"{type(error).__name__}: "
        sweep.note_error(spec.name, kind + one_line(error))
    # What the error's traceback held is gone now.
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def _alone(sweep: SweepFolder, job: str, signals: StopSignals) -> Iterator[None]:
    """Waits until nobody else runs the job."""
    while True:
        with sweep.running(job) as locked:
            if locked:
                yield
                return
        _leave_if_asked(signals)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _leave_if_asked(signals: StopSignals) -> None:
    if signals.received:
        raise SystemExit(os.EX_TEMPFAIL)


@contextmanager
def _command_line(args: list[str]) -> Iterator[None]:
    """Further processes of a run on several devices start what ``sys.argv`` says."""
    before = sys.argv
    sys.argv = [str(Path(sys.executable).with_name("lnsgd")), *args]
    try:
        yield
    finally:
        sys.argv = before
