"""SLURM job arrays: how jobs are submitted, what is recorded of them, and how SLURM is asked about them."""

import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from lnsgd import compat
from lnsgd.records.submissions import JobArray, write_submission
from lnsgd.sweep.executors.slurm_options import SlurmOptions
from lnsgd.sweep.executors.slurm_task import SlurmTask
from lnsgd.sweep.folder import SweepFolder

# The most tasks of one array. SLURM's MaxArraySize is 1001 by default, and indices count from 0.
MAX_TASKS = 1000

# submitit limits how often a task may reach its time limit; here every time the run is further than before.
_UNLIMITED = sys.maxsize

# Python would be killed by a signal that arrives before it has installed its handlers.
_IGNORE_SIGNALS_AT_START = """bash -c 'trap "" USR1 USR2; exec "$@"' lnsgd"""

_QUERY_TIMEOUT_SECONDS = 60

# States after which a task does not run again.
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


def import_submitit() -> ModuleType:
    """Import the library that submits jobs to SLURM.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ValueError("--executor slurm needs submitit; install it: pip install 'lnsgd[slurm]'") from error
    return submitit


def slurm_folder(folder: SweepFolder) -> Path:
    """Return the folder of submitit: scripts, calls, and what tasks print before they begin and after a crash."""
    return folder.path.absolute() / "slurm"


def sbatch_text(options: SlurmOptions, name: str, folder: Path, tasks: int, at_once: int, python: str) -> str:
    """Return the script that is given to sbatch.

    Args:
        options: The resources of each task.
        name: Name of the job array.
        folder: Absolute path of the folder of submitit's files.
        tasks: Number of tasks.
        at_once: The largest number of tasks that run at the same time.
        python: The Python interpreter on the node.
    """
    import_submitit()
    count = tasks if tasks > 1 else None  # as submitit does
    return compat.sbatch_script(_python_command(python), folder, count, _parameters(options, name, at_once))


def submit(folder: SweepFolder, options: SlurmOptions, jobs: Sequence[str], retries: int, at_once: int) -> JobArray:
    """Submit jobs to SLURM as one array.

    Raises:
        ValueError: SLURM refuses them, or does not answer.
    """
    submitit = import_submitit()
    array = JobArray(_unique_name(folder), tuple(jobs))
    write_submission(folder.submissions, array)
    executor = submitit.SlurmExecutor(
        slurm_folder(folder), max_num_timeout=_UNLIMITED, python=_python_command(sys.executable)
    )
    executor.update_parameters(**_parameters(options, array.name, at_once))
    tasks = [SlurmTask(folder.path.absolute(), job, retries) for job in jobs]
    try:
        with executor.batch():
            submitted = [executor.submit(task) for task in tasks]
    except submitit.core.utils.FailedJobError as error:
        # The record without a number stays: sbatch may have been interrupted after SLURM had accepted the jobs.
        raise ValueError(f"SLURM does not accept the jobs: {' '.join(str(error).split())}") from error
    array = replace(array, number=submitted[0].job_id.partition("_")[0])
    write_submission(folder.submissions, array)
    return array


def _unique_name(folder: SweepFolder) -> str:
    return f"lnsgd-{re.sub('[^A-Za-z0-9._-]', '_', folder.path.absolute().name)}-{uuid.uuid4().hex[:8]}"


def ask_states(arrays: Iterable[JobArray]) -> dict[tuple[str, int], str] | None:
    """Ask SLURM for the state of each task, by the array's name and the task's index.

    Some minutes after a task has ended, SLURM does not list it any more.

    Returns:
        The states of the tasks that SLURM lists, or ``None`` if it does not answer.
    """
    names = ",".join(array.name for array in arrays)
    which = [f"--name={names}", f"--user={os.getuid()}"]
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%j|%K|%T", *which]
    try:
        answer = subprocess.run(  # noqa: S603 - the command has no input of users
            command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    if answer.returncode != 0:
        return None
    rows = (line.split("|") for line in answer.stdout.splitlines() if line)
    return {(name, int(index) if index.isdigit() else 0): state for name, index, state in rows}


def has_ended(state: str | None) -> bool:
    """Return whether a task in this state does not run again; the state of a task that SLURM does not list is None."""
    return state is None or state in _ENDED


def cancel(array: JobArray) -> bool:
    """Cancel a job array by its name, if it is in the queue; return whether SLURM has answered."""
    command = ["scancel", f"--name={array.name}", f"--user={os.getuid()}"]
    return subprocess.run(command, capture_output=True).returncode == 0  # noqa: S603 - no input of users


def _parameters(options: SlurmOptions, name: str, at_once: int) -> dict[str, Any]:
    """Return the parameters of a job array under submitit's names."""
    given = {
        "job_name": name,
        "partition": options.partition,
        "time": options.time,
        "signal_delay_s": options.grace,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": options.cpus_per_task,
        "gpus_per_task": options.gpus_per_task or None,
        "mem": f"{round(options.mem * 1000)}M",
        "setup": list(options.setup) or None,
        "array_parallelism": at_once,
        "stderr_to_stdout": True,
        # srun does not inherit this option.
        "srun_args": [f"--cpus-per-task={options.cpus_per_task}"],
        "additional_parameters": {"requeue": True, **options.additional},
    }
    return {key: value for key, value in given.items() if value is not None}


def _python_command(python: str) -> str:
    return f"{_IGNORE_SIGNALS_AT_START} {shlex.quote(python)}"
