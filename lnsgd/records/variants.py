"""``variants.json``: the claims of a figure under each reading of what its paper leaves open."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsgd.records.claims import Claim, claim_fields, claim_from
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming
from lnsgd.untrusted.texts import load_json

VERSION = 1


@dataclass(frozen=True)
class ReadingResult:
    """The claims of a figure under one reading.

    Attributes:
        name: Name of the reading.
        about: What is read, in one line.
        seconds: Duration of its runs together.
        claims: Its claims with their verdicts.
    """

    name: str
    about: str
    seconds: float
    claims: Sequence[Claim]


@dataclass(frozen=True)
class VariantsRecord:
    """The content of ``variants.json``.

    Attributes:
        command: The command that made it.
        figure: Name of the figure.
        title: What the figure shows, in one line.
        scale: Its scale.
        seeds: Number of seeds of each arm.
        budget_minutes: The time after which no further reading was begun.
        readings: The readings that were run.
        left_out: Names of the readings for which there was no time.
    """

    command: str
    figure: str
    title: str
    scale: str
    seeds: int
    budget_minutes: float
    readings: Sequence[ReadingResult]
    left_out: Sequence[str] = ()


_TEXTS = ("command", "figure", "title", "scale")


def write_variants(record: VariantsRecord, path: Path) -> None:
    """Write ``variants.json``.

    Args:
        record: Its content.
        path: The file; written whole or not at all.
    """
    content = {
        "version": VERSION,
        **{name: getattr(record, name) for name in _TEXTS},
        "seeds": record.seeds,
        "budget_minutes": record.budget_minutes,
        "readings": [
            {
                "name": reading.name,
                "about": reading.about,
                "seconds": reading.seconds,
                "claims": [claim_fields(claim) for claim in reading.claims],
            }
            for reading in record.readings
        ],
        "left_out": list(record.left_out),
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_variants(path: Path) -> VariantsRecord:
    """Read ``variants.json``.

    Args:
        path: The file.

    Raises:
        ValueError: the file is missing or damaged, or a field has a value that lnsgd never writes.
    """
    with naming(path):
        content = load_json(path)
        if not isinstance(content, dict):
            raise UnreadableError(f"it holds {type(content).__name__} where an object is expected")
        if content.get("version") != VERSION:
            raise UnreadableError(f"its version is {content.get('version')!r:.20}, and this lnsgd reads {VERSION}")
        seeds = content.get("seeds")
        if not isinstance(seeds, int) or isinstance(seeds, bool):
            raise UnreadableError(f"its seeds is {seeds!r:.80}")
        readings, left_out = content.get("readings"), content.get("left_out")
        if not isinstance(readings, list) or not isinstance(left_out, list):
            raise UnreadableError("it has no lists of readings and of what was left out")
        return VariantsRecord(
            **{name: _text(content, name) for name in _TEXTS},
            seeds=seeds,
            budget_minutes=_number(content, "budget_minutes"),
            readings=[_reading(row) for row in readings],
            left_out=[str(name) for name in left_out],
        )


def _reading(row: Any) -> ReadingResult:
    if not isinstance(row, Mapping) or not isinstance(row.get("claims"), list):
        raise UnreadableError("one of its readings has no list of claims")
    claims = [claim_from(claim, number) for number, claim in enumerate(row["claims"], 1)]
    return ReadingResult(_text(row, "name"), _text(row, "about"), _number(row, "seconds"), claims)


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row.get(name), str):
        raise UnreadableError(f"its {name} is {row.get(name)!r:.80}")
    return str(row[name])


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e18 or not math.isfinite(value):
        raise UnreadableError(f"its {name} is {value!r:.80}")
    return float(value)
