"""Write the summary page of the kit."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lnsgd.runs.writing import whole_file
from scripts.gpu.plan import Device, Stage
from scripts.gpu.results import lines_of
from scripts.gpu.runner import Record

_REHEARSAL = """\
**A rehearsal on a CPU.** Each stage ran at a small size. This shows that the kit works; its numbers say nothing about a
GPU, and little about this CPU.
"""


def write_summary(
    folder: Path, device: Device, plan: Sequence[Stage], records: Mapping[str, Record], left_out: Mapping[str, str]
) -> Path:
    """Write ``summary.md``: the machine, the outcome of each stage, and its numbers.

    Args:
        folder: The folder of the kit.
        device: The device.
        plan: The stages, in order.
        records: What is known of the stages that were begun, by name.
        left_out: Why other stages were not begun, by name.

    Returns:
        The page.
    """
    page = [f"# lnsgd on {_machine(folder) or device}", ""]
    if device == "cpu":
        page += [_REHEARSAL]
    page += ["| stage | outcome | seconds | commit | |", "|---|---|---|---|---|"]
    for stage in plan:
        record = records.get(stage.name)
        if record is None:
            page.append(f"| {stage.name} | not begun | | | {_cell(left_out.get(stage.name, ''))} |")
        else:
            runs = f" in {record.runs} runs" if record.runs > 1 else ""
            seconds = f"{record.seconds:.0f}{runs}"
            page.append(f"| {stage.name} | {record.outcome} | {seconds} | {record.commit} | {_cell(record.why)} |")
    for stage in plan:
        lines = lines_of(stage, folder)
        if not lines:
            continue
        result = f"[`json/{stage.name}.json`](json/{stage.name}.json)"
        page += ["", f"## {stage.name}", "", f"{stage.question} All numbers: {result}.", ""]
        page += [f"\n{line}" if line.startswith("!") else f"* {line}" for line in lines]
    path = folder / "summary.md"
    with whole_file(path) as part:
        part.write_text("\n".join(page) + "\n")
    return path


def _machine(folder: Path) -> str:
    """Return the machine in a few words, if the stage ``machine`` has run."""
    path = folder / "json" / "machine.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    names = [gpu["name"] for gpu in found["gpus"]]
    gpus = f"{len(names)} × {names[0]}, " if names else ""
    return f"{gpus}{found['cores']} cores ({found['machine']}), torch {found['versions']['torch']}"


def _cell(text: str) -> str:
    """Return a text that can stand in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
