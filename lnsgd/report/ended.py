"""How a run, a sweep or an analysis ended: what its JSON file says of it."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lnsgd.numbers import duration, moment, number
from lnsgd.report.reading import read_object

_ENDED_NUMBERS = ("steps", "epochs", "seconds", "jobs", "jobs_at_once")


def read_ended(path: Path) -> dict[str, Any]:
    """A ``finished.json``, or what else says how something ended; nothing where there is none.

    Raises:
        ValueError: it is damaged.
    """
    if not path.exists():
        return {}
    ended = read_object(path)
    wrong = [name for name in _ENDED_NUMBERS if not isinstance(ended.get(name, 0), (int, float))]
    if not isinstance(ended.get("versions", {}), dict):
        wrong.append("versions")
    if "ended" in ended and _when(ended["ended"]) is None:
        wrong.append("ended")
    if wrong:
        raise ValueError(f"{path} has {wrong[0]} = {ended[wrong[0]]!r:.80}, which lnsgd never writes; leave it out")
    return ended


def _when(ended: Any) -> datetime | None:
    """A date and time as ``finished.json`` has it; ``None`` of what is none."""
    try:
        return datetime.fromisoformat(ended)
    except (TypeError, ValueError):
        return None


def facts(ended: Mapping[str, Any], file: Path) -> list[tuple[str, str]]:
    """What `read_ended` has read: command, steps, time, hardware, versions; and when it ended.

    Files of older versions do not say when; of those it is when the file was written.
    """
    if not ended:
        return []
    versions = ended.get("versions", {})
    when = _when(ended.get("ended"))
    said = {
        "command": str(ended.get("command", "")),
        "steps": number(ended["steps"]) if "steps" in ended else "",
        "epochs": number(ended["epochs"]) if "epochs" in ended else "",
        "jobs": f"{ended['jobs']:,}, {ended.get('jobs_at_once', 1)} at a time" if "jobs" in ended else "",
        "stopped by": str(ended.get("stopped_by", "")),
        "time": duration(ended["seconds"]) if "seconds" in ended else "",
        "device": str(ended.get("device", "")),
        "threads": str(ended.get("threads", "")),
        "processes": _processes(ended),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "ended": moment(when) if when else "",
        "written": "" if when else moment(datetime.fromtimestamp(file.stat().st_mtime)),
    }
    return [(name, text) for name, text in said.items() if text]


def _processes(ended: Mapping[str, Any]) -> str:
    """Their number; of a run that went on with others, all of them in order."""
    history = ended.get("process_history")
    if not isinstance(history, list) or not all(isinstance(part, Mapping) for part in history):
        return str(ended.get("processes", ""))
    return ", ".join(f"{part.get('processes')} from step {part.get('from_step')}" for part in history)
