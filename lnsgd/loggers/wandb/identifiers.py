"""The name of a W&B project and the id of a W&B run: which are valid, and the file that keeps the id."""

from pathlib import Path

from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import size_of
from lnsgd.untrusted.tables import naming

# Characters that names of projects, and ids of runs, must not have. Ids also name files and are part of addresses.
_NOT_IN_PROJECTS, _NOT_IN_IDS = "/\\#?%:", "/\\#?%:;,'"

# The most characters of a project's name, and the most bytes of an id.
_LONGEST = 128

# The most bytes of the file with an id, which is far shorter.
_LARGEST_FILE = 4096


def check_project(name: str) -> None:
    """Raise ValueError if W&B does not accept the name of a project."""
    if not name or len(name) > _LONGEST or set(name) & set(_NOT_IN_PROJECTS):
        raise ValueError(
            f"W&B project {name!r}: give 1 to {_LONGEST} characters, none of them one of {' '.join(_NOT_IN_PROJECTS)}"
        )


def check_run_id(given: str) -> None:
    """Raise ValueError if W&B does not accept the id of a run, or it is more than the end of a file's name."""
    if (
        not 0 < len(given.encode(errors="replace")) <= _LONGEST
        or given != given.strip()
        or given in (".", "..")
        or not given.isprintable()
        or set(given) & set(_NOT_IN_IDS)
    ):
        raise ValueError(
            f"W&B run id {given!r:.60}: give 1 to {_LONGEST} printable characters, none of them one of "
            f"{' '.join(_NOT_IN_IDS)}"
        )


def read_run_id(path: Path) -> str | None:
    """Read the id of the W&B run that a run continues when it is resumed; ``None`` if the file does not exist.

    Raises:
        ValueError: The content of the file is not an id.
    """
    if not path.exists():
        return None
    with naming(path, "remove it to begin a new W&B run"):
        size_of(path, _LARGEST_FILE)
        run_id = path.read_text(encoding="utf-8").strip()
        check_run_id(run_id)
        return run_id


def write_run_id(path: Path, run_id: str) -> None:
    """Write the id of a W&B run to a file; a link is replaced, not followed."""
    with whole_file(path) as part:
        part.write_text(f"{run_id}\n", encoding="utf-8")
