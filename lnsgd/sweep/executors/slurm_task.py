"""A job of a sweep as a SLURM task: what runs on the node."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import torch

from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.job_runner import run_job

# The signal that SLURM sends when a job's time is nearly up or it is preempted; submitit handles this signal only.
_PREEMPTION_SIGNAL = signal.SIGUSR2

_QUERY_TIMEOUT_SECONDS = 60


class SlurmTask:
    """The callable that submitit runs on the node.

    A signal that asks to stop saves the run at the end of a batch. If SLURM then still lists the task as running (its
    time is nearly up, or it is being preempted), submitit queues the task again, and it resumes bit for bit. Otherwise
    (``scancel``, ``scontrol requeue``) SLURM has already decided what follows. None of this counts as an attempt, nor
    does a task that SLURM itself killed and queued again.

    Args:
        folder: The folder of the sweep, an absolute path.
        job: Name of a job.
        retries: See `lnsgd.sweep.job_runner.run_job`.
    """

    def __init__(self, folder: Path, job: str, retries: int) -> None:
        self.folder, self.job, self.retries = folder, job, retries

    def __call__(self) -> None:
        """Run the job.

        Raises:
            SystemExit: The job is not finished; code 75, or the code of submitit if the task has been queued again.
        """
        sweep = SweepFolder(self.folder)
        _redirect_output(sweep.log(self.job))
        threads = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
        attempts = sweep.read_attempts(self.job)
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) and attempts.begun > len(attempts.errors):
            sweep.take_back_attempt(self.job)
        try:
            run_job(self.folder, self.job, self.retries)
        except SystemExit as stopped:
            if stopped.code == os.EX_TEMPFAIL and _is_listed_as_running():
                signal.raise_signal(_PREEMPTION_SIGNAL)
            raise

    def checkpoint(self) -> Any:
        """Return what submitit queues again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _redirect_output(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)


def _is_listed_as_running() -> bool:
    """Return whether SLURM lists this task as running, or cannot be asked."""
    # The job id of one task of an array may be that of the whole array.
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
    name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={name}"]
    try:
        answer = subprocess.run(  # noqa: S603 - the command has no input of users
            command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    return answer.returncode != 0 or answer.stdout.strip() == "RUNNING"
