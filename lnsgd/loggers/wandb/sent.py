"""Which numbers a W&B run has already, so that a run that goes on sends none twice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming, read_record
from lnsgd.writing import Throttle, whole_file

# What can be done about a file that says nothing of use.
REMEDY = "remove it, and numbers that W&B has already may be sent once more"


@dataclass(frozen=True)
class Noted:
    """What a file of `SentSteps` says.

    Attributes:
        run_id: The W&B run that it is about.
        steps: The last step at which each number was sent.
    """

    run_id: str
    steps: dict[str, int]


def read_noted(path: Path) -> Noted | None:
    """Reads a file of `SentSteps`; ``None`` where there is none.

    Raises:
        ValueError: it is damaged, or holds steps that are none.
    """
    if not path.exists():
        return None
    with naming(path, REMEDY):
        kept = read_record(path, {"id": str, "steps": dict}, REMEDY)
        for name, step in kept["steps"].items():
            if type(step) is not int or step < 0:
                raise UnreadableError(f"its step of {name!r:.60} is {step!r:.60}")
        return Noted(kept["id"], kept["steps"])


class SentSteps:
    """The last step at which each number was sent to a W&B run.

    A run that was killed goes on from its last checkpoint and takes the steps after it once more, bit for bit. W&B
    keeps what it got, and would show these steps twice. The steps are kept by the name of the number, because several
    numbers of one step come one after the other, and a run may be killed between them.

    Args:
        path: File that they are kept in; written as often as costs little, and by `write`.
        noted: What the file says already; of another run it does not count.
        run_id: Of the W&B run.
        received: The last step that the server has, -1 for none; ``None`` for a run that is kept offline.
    """

    def __init__(self, path: Path, noted: Noted | None, run_id: str, received: int | None) -> None:
        self._path, self._run_id = path, run_id
        self._throttle = Throttle()
        known = noted.steps if noted is not None and noted.run_id == run_id else None
        self._steps = dict(known or {})
        # What was killed may have sent less than it has noted; what the server has is right.
        most = received if received is not None else max(self._steps.values(), default=-1)
        self._before = {name: min(step, most) for name, step in self._steps.items()}
        self._otherwise = most if known is None else -1

    def unsent(self, numbers: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Those that the run had not got before it went on; from now on they are sent."""
        new = {name: value for name, value in numbers.items() if step > self._before.get(name, self._otherwise)}
        self._steps.update(dict.fromkeys(new, step))
        if new and self._throttle.due():
            self.write()
        return new

    def write(self) -> None:
        """Writes the file."""
        with self._throttle.writing(), whole_file(self._path) as part:
            part.write_text(json.dumps({"id": self._run_id, "steps": self._steps}))
