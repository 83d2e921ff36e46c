"""Keep what a stage leaves: a JSON object and pictures; and say its numbers in a few lines."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lnsgd.records.claims import count_claims, read_claims
from lnsgd.runs.writing import whole_file
from scripts.gpu.plan import Stage

# Ratios of a benchmark that the summary shows.
_RATIOS_SHOWN = 24


class ResultError(Exception):
    """A stage has not left what it should."""


def collect(stage: Stage, work: Path, folder: Path) -> None:
    """Copy the result of a stage to ``json/NAME.json``, and its pictures to ``pictures``.

    Args:
        stage: The stage, which has ended.
        work: The folder of its own files.
        folder: The folder of the kit.

    Raises:
        ResultError: it has not left what it should.
    """
    if stage.result == "figure":
        _copy_figure(work, stage.name, folder)
        return
    found = _printed(work / "stdout.txt") if stage.result == "json" else _tests(work / "tests.xml")
    with whole_file(json_path(stage, folder)) as part:
        part.write_text(json.dumps(found, indent=2) + "\n")


def json_path(stage: Stage, folder: Path) -> Path:
    """Return the file with the result of a stage.

    Args:
        stage: The stage.
        folder: The folder of the kit.
    """
    return folder / "json" / f"{stage.name}.json"


def lines_of(stage: Stage, folder: Path) -> list[str]:
    """Return the numbers of a stage's result as lines of Markdown.

    Args:
        stage: The stage.
        folder: The folder of the kit; without a result in it there are no lines.
    """
    path = json_path(stage, folder)
    if not path.exists():
        return []
    if stage.result == "figure":
        pictures = [f"![{stage.name}](pictures/{stage.name}.png)"]
        return [count_claims(read_claims(path).claims) or "no claims", *pictures]
    found = json.loads(path.read_text())
    if stage.result == "tests":
        failed = [f"fails: `{test['name']}`" for test in found["tests"] if test["outcome"] == "failed"]
        return [", ".join(f"{number} {outcome}" for outcome, number in found["counts"].items()), *failed]
    ratios = list(_ratios(found))
    more = [f"and {len(ratios) - _RATIOS_SHOWN} more"] if len(ratios) > _RATIOS_SHOWN else []
    return [f"{name}: {value:g}" for name, value in ratios[:_RATIOS_SHOWN]] + more


def _printed(path: Path) -> dict[str, Any]:
    text = path.read_text(errors="replace")
    try:
        found = json.loads(text)
    except ValueError:
        raise ResultError(f"it printed no JSON, but {text[:80]!r}") from None
    if not isinstance(found, dict):
        raise ResultError(f"it printed no JSON object, but {text[:80]!r}")
    return found


def _tests(path: Path) -> dict[str, Any]:
    """Return the tests of a JUnit report, which pytest has written."""
    try:
        # A test that was interrupted has no name.
        cases = [case for case in ElementTree.parse(path).iter("testcase") if case.get("name")]  # noqa: S314 (own file)
    except (OSError, ElementTree.ParseError) as error:
        raise ResultError(f"there is no report of the tests: {error}") from None
    tests = [
        {
            "name": f"{case.get('classname')}::{case.get('name')}",
            "outcome": _outcome_of(case),
            "seconds": float(case.get("time", "nan")),
        }
        for case in cases
    ]
    return {"counts": dict(Counter(test["outcome"] for test in tests)), "tests": tests}


def _outcome_of(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def _copy_figure(work: Path, name: str, folder: Path) -> None:
    for source, target in (
        (work / "claims.json", folder / "json" / f"{name}.json"),
        (work / f"{name}.png", folder / "pictures" / f"{name}.png"),
    ):
        if not source.exists():
            raise ResultError(f"there is no {source.name}")
        with whole_file(target) as part:
            shutil.copyfile(source, part)


def _ratios(found: Any, path: tuple[str, ...] = (), within: bool = False) -> Iterator[tuple[str, float]]:
    """Yield the numbers under keys that name a ratio, with where they are."""
    if isinstance(found, dict):
        for key, value in found.items():
            is_ratio = "ratio" in key
            own = path if key == "ratios" else (*path, key)
            yield from _ratios(value, own, within or is_ratio)
    elif within and isinstance(found, int | float) and not isinstance(found, bool):
        yield ", ".join(path), float(found)
