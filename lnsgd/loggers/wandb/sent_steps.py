"""Which numbers a W&B run already has, so that a resumed run sends none twice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsgd.records.sent_steps import SentRecord, write_sent_record
from lnsgd.runs.writing import Throttle


class SentSteps:
    """The last step at which each number was sent to a W&B run.

    A run that was killed resumes from its last checkpoint and repeats the steps after it, bit for bit. W&B keeps what
    it has received, and would display these steps twice. The steps are recorded by the name of the number, because the
    numbers of one step are sent one after the other, and a run may be killed between them.

    Args:
        path: File with the record; written as often as costs little time, and by `write`.
        record: Present content of the file; ignored if it belongs to another run.
        run_id: Id of the W&B run.
        received: The last step that the server has, -1 for none; ``None`` for a run that is kept offline.
    """

    def __init__(self, path: Path, record: SentRecord | None, run_id: str, received: int | None) -> None:
        self._path, self._run_id = path, run_id
        self._throttle = Throttle()
        known = record.steps if record is not None and record.run_id == run_id else None
        self._steps = dict(known or {})
        # A killed run may have sent less than it has recorded; the server's answer is right.
        last = received if received is not None else max(self._steps.values(), default=-1)
        self._before = {name: min(step, last) for name, step in self._steps.items()}
        self._default = last if known is None else -1

    def unsent(self, numbers: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Return the numbers that the W&B run does not have yet, and record them as sent."""
        new = {name: value for name, value in numbers.items() if step > self._before.get(name, self._default)}
        self._steps.update(dict.fromkeys(new, step))
        if new and self._throttle.due():
            self.write()
        return new

    def write(self) -> None:
        """Write the file."""
        with self._throttle.writing():
            write_sent_record(SentRecord(self._run_id, self._steps), self._path)
