"""Private and version-dependent interfaces of submitit."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sbatch_script(python: str, folder: Path, map_count: int | None, parameters: Mapping[str, Any]) -> str:
    """Return the script that submitit gives to sbatch, for tasks that it keeps in a folder.

    Tried with submitit 1.5.4.

    Args:
        python: The command of the Python interpreter.
        folder: The folder.
        map_count: Number of tasks of a job array; ``None`` for a single job.
        parameters: Options of sbatch.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return _make_sbatch_string(command, folder, map_count=map_count, **parameters)
