"""How a run, a sweep, a computation or an analysis was made: ``finished.json`` and its relatives.

The same fields stand in ``finished.json`` of a run, a sweep or a computed figure, in ``analysis.json`` and
``comparison.json`` of an analysis, and under ``provenance`` in ``claims.json``. Each writer gives those that it knows.
"""

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lnsgd import __version__
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming
from lnsgd.untrusted.texts import load_json

# Every field with the types of its value.
_KINDS: dict[str, tuple[type, ...]] = {
    "command": (str,),
    "inputs": (list,),
    "preprocessing": (str,),
    "epochs": (int, float),
    "steps": (int,),
    "seconds": (int, float),
    "ended": (str,),
    "device": (str,),
    "processes": (int,),
    "threads": (int,),
    "jobs": (int,),
    "jobs_at_once": (int,),
    "versions": (dict,),
    "process_history": (list,),
    "stopped_by": (str,),
}

# The fields that say how long a run was, and those that every finished run has.
LENGTH = ("steps", "epochs")
TRAINED = (*LENGTH, "seconds", "device", "versions")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How something was made. A field that is ``None`` or empty is not known and is not written.

    Attributes:
        command: The command line.
        inputs: What was analyzed: absolute paths.
        preprocessing: What the networks were given, in words.
        epochs: Epochs that were trained.
        steps: Optimizer steps that were taken; of a figure, the sum over its arms.
        seconds: Time that it took, measuring included; of several runs or jobs, the sum.
        ended: Date and time of the end, in UTC, in ISO format.
        device: Name of the device.
        processes: Number of processes at the end.
        threads: Number of threads on the CPU.
        jobs: Number of jobs of a sweep.
        jobs_at_once: Number of jobs that ran at a time.
        versions: Versions of packages, by name.
        process_history: For a run that was resumed with another number of processes: each number, and its first step.
        stopped_by: The stopping rule that ended the run, or ``limit``.
    """

    command: str | None = None
    inputs: Sequence[str] = ()
    preprocessing: str | None = None
    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None
    ended: str | None = None
    device: str | None = None
    processes: int | None = None
    threads: int | None = None
    jobs: int | None = None
    jobs_at_once: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    process_history: Sequence[Mapping[str, int]] = ()
    stopped_by: str | None = None

    @property
    def when(self) -> datetime | None:
        """Date and time of the end; ``None`` in records of older versions, which do not say it."""
        return None if self.ended is None else datetime.fromisoformat(self.ended)

    def as_fields(self) -> dict[str, Any]:
        """Return the fields that are known, as they stand in a file."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {}, [], ())}


def provenance_of_now(*, packages: Collection[str] = (), **known: Any) -> Provenance:
    """Return the provenance of what this process has just made.

    Args:
        packages: Packages whose versions are noted besides those of lnsgd and torch.
        known: Further fields; the device is this machine's processor unless it is given.
    """
    from importlib.metadata import version

    import torch

    own = {
        "ended": now(),
        "device": platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {
            "lnsgd": __version__,
            "torch": torch.__version__,
            **{package: version(package) for package in packages},
        },
    }
    return Provenance(**{**own, **known})


def now() -> str:
    """Return the date and time as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_provenance(provenance: Provenance, path: Path) -> None:
    """Write a file such as ``finished.json``.

    Args:
        provenance: The fields.
        path: The file; written whole or not at all.
    """
    with whole_file(path) as part:
        part.write_text(json.dumps(provenance.as_fields(), indent=2, ensure_ascii=False) + "\n")


def read_provenance(path: Path, needed: Collection[str] = ()) -> Provenance:
    """Read a file such as ``finished.json``.

    Args:
        path: The file.
        needed: Fields that it must have, such as ``TRAINED``.

    Raises:
        ValueError: the file is missing or damaged, a field that is needed is missing, or one has a value that lnsgd
            never writes.
    """
    with naming(path):
        return provenance_from(load_json(path), needed)


def provenance_from(content: Any, needed: Collection[str] = ()) -> Provenance:
    """Return the provenance in the content of a file; fields that are not known here are ignored.

    Args:
        content: What the file holds.
        needed: Fields that it must have.

    Raises:
        UnreadableError: a field is missing or has a value that lnsgd never writes.
    """
    if not isinstance(content, dict):
        raise UnreadableError(f"it holds {type(content).__name__} where an object is expected")
    known = {name: content[name] for name in _KINDS if name in content}
    for name, value in known.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool) or not _is_well_formed(name, value):
            raise UnreadableError(f"its {name} is {value!r:.80}")
    if missing := [name for name in needed if name not in content]:
        raise UnreadableError(f"it has no {missing[0]}")
    return Provenance(**known)


def _is_well_formed(name: str, value: Any) -> bool:
    """Whether a value of the right type is one that lnsgd writes."""
    if name == "ended":
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return False
    if name == "inputs":
        return all(isinstance(path, str) for path in value)
    if name == "versions":
        return all(isinstance(version, str) for version in value.values())
    if name == "process_history":
        keys = {"from_step", "processes"}
        return all(isinstance(part, dict) and set(part) == keys for part in value)
    return True
