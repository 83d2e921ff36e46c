"""Jobs that were handed to another system, such as a queue: ``submissions/<array>.json`` in the folder of a sweep."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.tables import read_record


@dataclass(frozen=True)
class JobArray:
    """Jobs that were submitted together, as a job array of SLURM is.

    It is recorded before it is submitted, and its number afterwards. If an array is recorded without a number, only the
    other system knows whether it was submitted, and can be asked by the array's name.

    Attributes:
        name: Its name in the other system, which is unique.
        jobs: Names of the jobs that its tasks run, in order.
        number: The number that the other system has given it.
    """

    name: str
    jobs: tuple[str, ...]
    number: str | None = None

    def task(self, job: str) -> str:
        """Return SLURM's name of the task that runs a job."""
        index = "" if len(self.jobs) == 1 else f"_{self.jobs.index(job)}"
        return f"{self.number}{index}"


def read_submissions(folder: Path) -> list[JobArray]:
    """Read the arrays that were submitted and may not have ended.

    Args:
        folder: The folder ``submissions`` of a sweep, which need not exist.

    Raises:
        ValueError: a file is damaged.
    """
    found = (
        read_record(path, {"name": str, "jobs": list, "number": str | None})
        for path in sorted(folder.glob("[!.]*.json"))
    )
    return [JobArray(given["name"], tuple(given["jobs"]), given["number"]) for given in found]


def write_submission(folder: Path, array: JobArray) -> None:
    """Record an array.

    Args:
        folder: See `read_submissions`.
        array: The array.
    """
    with whole_file(_path(folder, array)) as part:
        part.write_text(json.dumps(asdict(array), ensure_ascii=False) + "\n")


def remove_submission(folder: Path, array: JobArray) -> None:
    """Remove the record of an array of which no task is in the queue any more.

    Args:
        folder: See `read_submissions`.
        array: The array.
    """
    _path(folder, array).unlink(missing_ok=True)


def _path(folder: Path, array: JobArray) -> Path:
    return folder / f"{array.name}.json"
