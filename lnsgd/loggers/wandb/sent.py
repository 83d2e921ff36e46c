"""Which numbers a W&B run has already, so that a run that goes on sends none twice."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsgd.untrusted.tables import read_record
from lnsgd.writing import Throttle, whole_file


class SentSteps:
    """The last step at which each number was sent to a W&B run.

    A run that was killed goes on from its last checkpoint and takes the steps after it once more, bit for bit. W&B
    keeps what it got, and would show these steps twice. The steps are kept by the name of the number, because several
    numbers of one step come one after the other, and a run may be killed between them.

    Args:
        path: File that they are kept in; written as often as costs little, and by `write`.
        run_id: Of the W&B run. A file of another run does not count.
        received: The last step that the server has, -1 for none; ``None`` for a run that is kept offline.
    """

    def __init__(self, path: Path, run_id: str, received: int | None) -> None:
        self._path, self._run_id = path, run_id
        self._throttle = Throttle()
        kept = read_record(path, {"id": str, "steps": dict}) if path.exists() else {}
        known = kept.get("id") == run_id
        self._steps: dict[str, int] = kept["steps"] if known else {}
        # What was killed may have sent less than it has noted; what the server has is right.
        most = received if received is not None else max(self._steps.values(), default=-1)
        self._before = {name: min(step, most) for name, step in self._steps.items()}
        self._otherwise = -1 if known else most

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
