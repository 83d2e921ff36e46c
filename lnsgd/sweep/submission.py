"""Jobs handed to SLURM: as what, which of them it still has, and what is remembered of that."""

import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.slurm_options import SlurmOptions
from lnsgd.sweep.slurm_task import SlurmTask
from lnsgd.untrusted.tables import read_record
from lnsgd.writing import whole_file

# SLURM's MaxArraySize is 1001 where nobody has changed it, and that counts indices from 0.
MOST_TASKS = 1000

# submitit bounds how often a task may reach the end of its time; each time a run is further than before.
_ANY_NUMBER = sys.maxsize

# A signal would kill Python before it listens to it.
_DEAF_AT_FIRST = """bash -c 'trap "" USR1 USR2; exec "$@"' lnsgd"""

_SECONDS_FOR_AN_ANSWER = 60

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


@dataclass(frozen=True)
class Submission:
    """A job array.

    It is remembered before sbatch is called, and its number after that: of one without a number nobody knows whether
    SLURM has it, except SLURM, by its name.

    Attributes:
        name: Its name in SLURM, which no other has.
        jobs: Names of its tasks' jobs, in their order.
        number: SLURM's number of the array.
    """

    name: str
    jobs: tuple[str, ...]
    number: str | None = None

    def task(self, job: str) -> str:
        """SLURM's name of a job's task."""
        index = "" if len(self.jobs) == 1 else f"_{self.jobs.index(job)}"
        return f"{self.number}{index}"


def import_submitit() -> ModuleType:
    """The library that talks to SLURM.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ValueError("--executor slurm needs submitit; install it: pip install 'lnsgd[slurm]'") from error
    return submitit


def slurm_folder(folder: SweepFolder) -> Path:
    """What submitit leaves: scripts, calls, what tasks print before they begin and after they have died."""
    return folder.path.absolute() / "slurm"


def sbatch_text(options: SlurmOptions, name: str, folder: Path, tasks: int, at_once: int, python: str) -> str:
    """The script that is given to sbatch.

    Args:
        options: What each task gets.
        name: Name of the job array.
        folder: Absolute folder of what submitit leaves.
        tasks: Their number.
        at_once: How many run at the same time at most.
        python: The Python interpreter on the node.
    """
    import_submitit()
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{_python(python)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    count = tasks if tasks > 1 else None  # as submitit does
    return _make_sbatch_string(command, folder, map_count=count, **_parameters(options, name, at_once))


def submit(folder: SweepFolder, options: SlurmOptions, jobs: Sequence[str], retries: int, at_once: int) -> Submission:
    """Hands jobs to SLURM as one array.

    Raises:
        ValueError: SLURM refuses them, or does not answer.
    """
    submitit = import_submitit()
    submission = Submission(new_name(folder), tuple(jobs))
    _remember(folder, submission)
    executor = submitit.SlurmExecutor(slurm_folder(folder), max_num_timeout=_ANY_NUMBER, python=_python(sys.executable))
    executor.update_parameters(**_parameters(options, submission.name, at_once))
    tasks = [SlurmTask(folder.path.absolute(), job, retries) for job in jobs]
    try:
        with executor.batch():
            submitted = [executor.submit(task) for task in tasks]
    except submitit.core.utils.FailedJobError as error:
        # Remembered without a number: sbatch may have been interrupted after SLURM had taken the jobs.
        raise ValueError(f"SLURM takes no jobs: {' '.join(str(error).split())}") from error
    submission = replace(submission, number=submitted[0].job_id.partition("_")[0])
    _remember(folder, submission)
    return submission


def new_name(folder: SweepFolder) -> str:
    """A name that no other job array has."""
    return f"lnsgd-{re.sub('[^A-Za-z0-9._-]', '_', folder.path.absolute().name)}-{uuid.uuid4().hex[:8]}"


def remembered(folder: SweepFolder) -> list[Submission]:
    """What was handed to SLURM from this folder and may not have ended."""
    found = (
        read_record(path, {"name": str, "jobs": list, "number": str | None})
        for path in sorted(folder.submissions.glob("[!.]*.json"))
    )
    return [Submission(given["name"], tuple(given["jobs"]), given["number"]) for given in found]


def forget(folder: SweepFolder, submission: Submission) -> None:
    """To be called when nothing of it is in the queue."""
    _record(folder, submission).unlink(missing_ok=True)


def ask_states(submissions: Iterable[Submission]) -> dict[tuple[str, int], str] | None:
    """The state of each task that SLURM knows, by the array's name and the task's index; None where it is silent.

    Some minutes after a task has ended SLURM does not know it any more.
    """
    names = ",".join(submission.name for submission in submissions)
    which = [f"--name={names}", f"--user={os.getuid()}"]
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%j|%K|%T", *which]
    try:
        answer = subprocess.run(  # noqa: S603 - nobody else writes the command
            command, capture_output=True, text=True, timeout=_SECONDS_FOR_AN_ANSWER
        )
    except subprocess.TimeoutExpired:
        return None
    if answer.returncode != 0:
        return None
    rows = (line.split("|") for line in answer.stdout.splitlines() if line)
    return {(name, int(index) if index.isdigit() else 0): state for name, index, state in rows}


def has_ended(state: str | None) -> bool:
    """Whether a task in this state does not run again; None is that of a task that SLURM does not know."""
    return state is None or state in _ENDED


def cancel(submission: Submission) -> bool:
    """Takes a job array out of the queue by its name, if it is there; gives whether SLURM has answered."""
    command = ["scancel", f"--name={submission.name}", f"--user={os.getuid()}"]
    return subprocess.run(command, capture_output=True).returncode == 0  # noqa: S603 - nobody else writes the command


def _parameters(options: SlurmOptions, name: str, at_once: int) -> dict[str, Any]:
    """As submitit calls them."""
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
        # srun does not take it over by itself.
        "srun_args": [f"--cpus-per-task={options.cpus_per_task}"],
        "additional_parameters": {"requeue": True, **options.additional},
    }
    return {key: value for key, value in given.items() if value is not None}


def _python(python: str) -> str:
    return f"{_DEAF_AT_FIRST} {shlex.quote(python)}"


def _record(folder: SweepFolder, submission: Submission) -> Path:
    return folder.submissions / f"{submission.name}.json"


def _remember(folder: SweepFolder, submission: Submission) -> None:
    with whole_file(_record(folder, submission)) as part:
        part.write_text(json.dumps(asdict(submission), ensure_ascii=False) + "\n")
