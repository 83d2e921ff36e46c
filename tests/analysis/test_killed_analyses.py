"""Analyses and comparisons in separate processes, killed at random moments or at each change, and started again."""

import os
import random
import signal
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.faults.killed_runs import kill_at_changes
from tests.warm_commands import SAID, WarmCommands

DEADLINE = 120

QUICK = ["--measures", "Performance,ActiveNeurons,DistanceFromInit,WeightNorms,ImplicitRegularizer"]

# With a measure that draws pictures.
ALL = ["--measures", "default,SpectralDensity"]
ALL += [f"--measures.SpectralDensity.{setting}" for setting in ("top=0", "probes=2", "steps=8")]


def arguments(run: Path, compared: bool, measures: list[str]) -> list[str]:
    """Return the arguments of the command, without the folder of its results."""
    inputs = ["--compare", str(run / "init.safetensors"), str(run)] if compared else [str(run)]
    return ["analyze", *inputs, *measures, "--accelerator", "cpu"]


def undisturbed(commands: WarmCommands, args: list[str], folder: Path) -> float:
    """Return the seconds that an undisturbed analysis takes."""
    began = time.monotonic()
    commands.start(args, folder)
    assert end(commands, folder) == 0
    return time.monotonic() - began


def end(commands: WarmCommands, folder: Path) -> int:
    """Wait until an analysis has ended or was killed, and return its exit code."""
    code = commands.end()
    assert code in (0, -signal.SIGKILL), (folder / SAID).read_text()
    return code


def computed(out: Path) -> list[bytes]:
    """Return the complete lines of the journal."""
    journal = out / "measured.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def wait_for_more(out: Path, lines: int, process: int) -> None:
    """Wait until more lines were computed, or the process has ended."""
    deadline = time.monotonic() + DEADLINE
    while len(computed(out)) <= lines and Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def results(out: Path) -> dict[str, bytes]:
    """Return the content of all files but the record of when they were made, and hidden files that a kill left."""
    files = (path for path in out.rglob("[!.]*") if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.parametrize(("kills", "measures"), [(2, QUICK), pytest.param(20, ALL, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "compared", [pytest.param(False, id="analyze"), pytest.param(True, id="compare", marks=pytest.mark.slow)]
)
def test_killed_analysis_ends_like_an_undisturbed_one(
    kills: int, measures: list[str], compared: bool, commands: WarmCommands, replicated: Path, tmp_path: Path
) -> None:
    """Nothing is computed twice, and every file equals that of an undisturbed analysis, bit for bit."""
    args = arguments(replicated, compared, measures)
    seconds = undisturbed(commands, [*args, "--out", str(tmp_path / "undisturbed")], tmp_path)
    wanted = results(tmp_path / "undisturbed")
    draw = random.Random(kills)
    killed, between, folders = 0, 0, count()
    while killed < kills:  # when one is complete, start another
        out = tmp_path / f"killed-{next(folders)}"
        seen: list[bytes] = []
        complete = False
        while killed < kills and not complete:
            process = commands.start([*args, "--out", str(out)], tmp_path)
            if draw.random() < 0.75:  # else it may be killed while it opens files or draws pictures
                wait_for_more(out, len(seen) + draw.randrange(4), process)
                time.sleep(draw.uniform(0, 0.05))
            else:
                time.sleep(draw.uniform(0, seconds))
            with suppress(ProcessLookupError):  # the process has ended already
                os.kill(process, signal.SIGKILL)
            complete = end(commands, tmp_path) == 0
            now = computed(out)
            assert now[: len(seen)] == seen
            seen = now
            killed += not complete
            between += not complete and 0 < len(seen) < len(computed(tmp_path / "undisturbed"))
        undisturbed(commands, [*args, "--out", str(out)], tmp_path)
        assert results(out) == wanted
    assert between > 0  # some kills hit an analysis that was partly done


@pytest.mark.slow
@pytest.mark.parametrize(("compared", "changes"), [(False, 8), (True, 16)], ids=["analyze", "compare"])
def test_analysis_killed_at_each_change_ends_alike(
    compared: bool, changes: int, commands: WarmCommands, replicated: Path, tmp_path: Path
) -> None:
    args = arguments(replicated, compared, QUICK)

    def same(killed: Path, whole: Path) -> None:
        assert results(killed) == results(whole)

    killed = kill_at_changes(commands, lambda out: [*args, "--out", str(out)], same, tmp_path)
    assert killed >= changes
