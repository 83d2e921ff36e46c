"""How something was made, as names and values of a page."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lnsgd.console.numbers import duration, moment, number
from lnsgd.records.provenance import Provenance, read_provenance


def facts_in(file: Path) -> list[tuple[str, str]]:
    """Return the facts in a file such as ``finished.json``; none if it does not exist.

    Records of older versions do not say when a run ended; for those the time when the file was written is given.

    Raises:
        ValueError: the file is damaged.
    """
    if not file.exists():
        return []
    provenance = read_provenance(file)
    found = facts(provenance)
    if found and provenance.when is None:
        found.append(("written", moment(datetime.fromtimestamp(file.stat().st_mtime))))
    return found


def facts(provenance: Provenance) -> list[tuple[str, str]]:
    """Return what is known of how something was made: command, steps, time, hardware, versions, end."""
    at_once = f"{provenance.jobs_at_once or 1} at a time"
    texts = [
        ("command", provenance.command),
        ("steps", _number(provenance.steps)),
        ("epochs", _number(provenance.epochs)),
        ("jobs", None if provenance.jobs is None else f"{provenance.jobs:,}, {at_once}"),
        ("stopped by", provenance.stopped_by),
        ("time", None if provenance.seconds is None else duration(provenance.seconds)),
        ("device", provenance.device),
        ("threads", _number(provenance.threads)),
        ("processes", _processes(provenance.process_history) or _number(provenance.processes)),
        ("versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())),
        ("ended", moment(provenance.when) if provenance.when else None),
    ]
    return [(name, text) for name, text in texts if text]


def _number(value: float | None) -> str | None:
    return None if value is None else number(value)


def _processes(history: Sequence[Any]) -> str:
    """Return the numbers of processes of a run that was resumed with another one, in their order."""
    return ", ".join(f"{part['processes']} from step {part['from_step']}" for part in history)
