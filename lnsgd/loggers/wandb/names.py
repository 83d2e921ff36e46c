"""What W&B takes as the name of a project and as the id of a run."""

# What is in no project's name; in no run's id, which also names files and is part of addresses.
_NOT_IN_PROJECTS, _NOT_IN_IDS = "/\\#?%:", "/\\#?%:;,'"

# Characters of a project's name; bytes of an id.
_LONGEST = 128


def check_project(name: str) -> None:
    """Raises ValueError where W&B would not take a project's name."""
    if not name or len(name) > _LONGEST or set(name) & set(_NOT_IN_PROJECTS):
        raise ValueError(
            f"W&B project {name!r}: give 1 to {_LONGEST} characters, none of them one of {' '.join(_NOT_IN_PROJECTS)}"
        )


def check_run_id(given: str) -> None:
    """Raises ValueError where W&B would not take a run's id, or it would be more than the end of a file's name."""
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
