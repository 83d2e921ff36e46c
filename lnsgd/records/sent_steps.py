"""Which numbers a W&B run already has: ``wandb-sent.json``."""

import json
from dataclasses import dataclass
from pathlib import Path

from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming, read_record

_REMEDY = "remove it; numbers that W&B already has may then be sent twice"


@dataclass(frozen=True)
class SentRecord:
    """The last step at which each number was sent to a W&B run.

    Attributes:
        run_id: Id of the W&B run.
        steps: The last step by the name of the number.
    """

    run_id: str
    steps: dict[str, int]


def read_sent_record(path: Path) -> SentRecord | None:
    """Read the record; ``None`` if the file does not exist.

    Args:
        path: The file.

    Raises:
        ValueError: the file is damaged, or holds values that are not steps.
    """
    if not path.exists():
        return None
    with naming(path, _REMEDY):
        found = read_record(path, {"id": str, "steps": dict}, _REMEDY)
        for name, step in found["steps"].items():
            if type(step) is not int or step < 0:
                raise UnreadableError(f"its step of {name!r:.60} is {step!r:.60}")
        return SentRecord(found["id"], found["steps"])


def write_sent_record(record: SentRecord, path: Path) -> None:
    """Write the record, whole or not at all.

    Args:
        record: The record.
        path: The file.
    """
    with whole_file(path) as part:
        part.write_text(json.dumps({"id": record.run_id, "steps": record.steps}))
