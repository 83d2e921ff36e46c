"""A job of a sweep as a SLURM task."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import torch

from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.work import run_job

# What SLURM sends where a job's time is nearly up, or it is preempted; submitit handles it and no other.
_PREEMPTED = signal.SIGUSR2

_SECONDS_FOR_AN_ANSWER = 60


class SlurmTask:
    """What submitit calls on the node.

    Told to stop by a signal the run is saved at the end of a batch. Then, if SLURM still takes the task for running
    (its time is nearly up, or it is being preempted), it is queued again by submitit and goes on bit for bit; if not
    (``scancel``, ``scontrol requeue``), SLURM itself has decided what follows. None of this is an attempt, nor is what
    SLURM has killed and queued again by itself.

    Args:
        folder: The sweep's folder, absolute.
        job: Name of a job.
        retries: See `lnsgd.sweep.work.run_job`.
    """

    def __init__(self, folder: Path, job: str, retries: int) -> None:
        self.folder, self.job, self.retries = folder, job, retries

    def __call__(self) -> None:
        """Runs the job.

        Raises:
            SystemExit: it is not over; code 75, or that of submitit where it has been queued again.
        """
        sweep = SweepFolder(self.folder)
        _print_to(sweep.log(self.job))
        threads = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
        attempts = sweep.read_attempts(self.job)
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) and attempts.begun > len(attempts.errors):
            sweep.take_back_attempt(self.job)
        try:
            run_job(self.folder, self.job, self.retries)
        except SystemExit as stopped:
            if stopped.code == os.EX_TEMPFAIL and _is_mine():
                signal.raise_signal(_PREEMPTED)
            raise

    def checkpoint(self) -> Any:
        """What submitit queues again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _print_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)


def _is_mine() -> bool:
    """Whether SLURM takes this task for running, or cannot be asked."""
    # The number of one task of an array is that of the whole array.
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
    name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={name}"]
    try:
        answer = subprocess.run(  # noqa: S603 - nobody else writes the command
            command, capture_output=True, text=True, timeout=_SECONDS_FOR_AN_ANSWER
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    return answer.returncode != 0 or answer.stdout.strip() == "RUNNING"
