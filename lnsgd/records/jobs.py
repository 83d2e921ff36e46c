"""Files of each job of a sweep: ``jobs/<job>.json``, ``attempts/<job>.json`` and ``progress/<job>.json``."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.tables import naming, read_record


@dataclass(frozen=True)
class JobSpec:
    """A job of a sweep, with everything that the process that runs it needs.

    Attributes:
        name: Name of the job.
        cells: Name and options of each cell, in the order of the replicas.
        configs: Base configs, each with a hash of its content when the job was planned.
        arguments: Further arguments of ``lnsgd fit``.
        replicated: Whether the cells are replicas of one run; otherwise there is one cell, an ordinary run.
        reason: Why the cells were packed in this way.
    """

    name: str
    cells: list[tuple[str, dict[str, Any]]]
    configs: dict[str, str]
    arguments: list[str]
    replicated: bool
    reason: str

    def check_configs(self) -> None:
        """Raise ValueError if a base config has changed: the cells would not be the runs that were planned."""
        for path, before in self.configs.items():
            if config_hash(Path(path)) != before:
                raise ValueError(
                    f"{path} has changed since the sweep was planned; run `lnsgd sweep` again with --retry-failed"
                )


def config_hash(path: Path) -> str:
    """Return a hash of a file; empty if it does not exist.

    Args:
        path: The file.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


@dataclass
class Attempts:
    """Attempts at a job. An attempt that was stopped on request does not count.

    Attributes:
        starts: For each attempt the step at which it began, which is the step of the run's newest checkpoint then.
        errors: One line for each attempt that failed and whose error is known.
    """

    starts: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def begun(self) -> int:
        """Number of attempts."""
        return len(self.starts)

    def without_progress(self, step: int) -> int:
        """Return the number of latest attempts, in a row, that did not advance the run.

        Only these count against the retries: a run that advances is never given up, however often its process dies.

        Args:
            step: Step of the run's newest checkpoint, see ``lnsgd.sweep.folder.step_reached``.

        Example:
            >>> Attempts([0, 0, 400]).without_progress(400), Attempts([0, 0, 400]).without_progress(900)
            (1, 0)
        """
        number = 0
        while number < self.begun and self.starts[-1 - number] == step:
            number += 1
        return number


def write_job(spec: JobSpec, path: Path) -> None:
    """Write ``jobs/<job>.json``; leave a file with equal content untouched.

    Args:
        spec: The job.
        path: The file; written whole or not at all.
    """
    text = json.dumps(asdict(spec), indent=1, ensure_ascii=False) + "\n"
    if path.exists() and path.read_text() == text:
        return
    with whole_file(path) as part:
        part.write_text(text)


def read_job(path: Path) -> JobSpec:
    """Read ``jobs/<job>.json``.

    Args:
        path: The file.

    Raises:
        ValueError: the file is missing or damaged.
    """
    given = read_record(path, {"cells": list})
    with naming(path):
        return JobSpec(**{**given, "cells": [(name, options) for name, options in given["cells"]]})


def write_attempts(attempts: Attempts, path: Path) -> None:
    """Write ``attempts/<job>.json``.

    Args:
        attempts: The attempts so far.
        path: The file; written whole or not at all.
    """
    with whole_file(path) as part:
        part.write_text(json.dumps(asdict(attempts), ensure_ascii=False) + "\n")


def read_attempts(path: Path) -> Attempts:
    """Read ``attempts/<job>.json``; a job that was never begun has no file.

    Args:
        path: The file.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.exists():
        return Attempts()
    given = read_record(path, {"starts": list, "errors": list})
    return Attempts(given["starts"], given["errors"])


def write_progress(done: float, path: Path) -> None:
    """Write ``progress/<job>.json``.

    Args:
        done: The part of the job's steps that is done, from 0 to 1.
        path: The file; written whole or not at all.
    """
    with whole_file(path) as part:
        part.write_text(json.dumps({"done": done}) + "\n")


def read_progress(path: Path) -> float:
    """Read ``progress/<job>.json``; a job that was never begun has no file.

    Args:
        path: The file.

    Raises:
        ValueError: the file is damaged.
    """
    return float(read_record(path, {"done": (int, float)})["done"]) if path.exists() else 0.0
