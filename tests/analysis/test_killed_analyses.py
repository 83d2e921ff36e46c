"""Analyses and comparisons in processes of their own, killed at random moments or at each, and started again."""

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

# Also what makes pictures of its own.
ALL = ["--measures", "default,SpectralDensity"]
ALL += [f"--measures.SpectralDensity.{setting}" for setting in ("top=0", "probes=2", "steps=8")]


def arguments(run: Path, compared: bool, measures: list[str]) -> list[str]:
    """Of the command, but for where its results go."""
    inputs = ["--compare", str(run / "init.safetensors"), str(run)] if compared else [str(run)]
    return ["analyze", *inputs, *measures, "--accelerator", "cpu"]


def undisturbed(commands: WarmCommands, args: list[str], folder: Path) -> float:
    """Seconds that an analysis takes."""
    began = time.monotonic()
    commands.start(args, folder)
    assert end(commands, folder) == 0
    return time.monotonic() - began


def end(commands: WarmCommands, folder: Path) -> int:
    """Exit code of an analysis, once it has ended or was killed."""
    code = commands.end()
    assert code in (0, -signal.SIGKILL), (folder / SAID).read_text()
    return code


def computed(out: Path) -> list[bytes]:
    """Lines of the journal that are whole."""
    journal = out / "measured.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def wait_for_more(out: Path, lines: int, process: int) -> None:
    """Until something was computed beyond so many lines, or nothing is left to compute."""
    deadline = time.monotonic() + DEADLINE
    while len(computed(out)) <= lines and Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def results(out: Path) -> dict[str, bytes]:
    """Tables, pictures, the journal, spectra; but not when it was. What a kill left half-written is hidden."""
    files = (path for path in out.rglob("[!.]*") if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.parametrize(("kills", "measures"), [(2, QUICK), pytest.param(20, ALL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("compared", [False, True], ids=["analyze", "compare"])
def test_killed_and_started_again(
    kills: int, measures: list[str], compared: bool, commands: WarmCommands, replicated: Path, tmp_path: Path
) -> None:
    """Nothing is computed twice, and every file is the undisturbed one's, bit for bit."""
    args = arguments(replicated, compared, measures)
    seconds = undisturbed(commands, [*args, "--out", str(tmp_path / "undisturbed")], tmp_path)
    wanted = results(tmp_path / "undisturbed")
    draw = random.Random(kills)
    killed, between, folders = 0, 0, count()
    while killed < kills:  # when one is complete, another begins
        out = tmp_path / f"killed-{next(folders)}"
        seen: list[bytes] = []
        complete = False
        while killed < kills and not complete:
            process = commands.start([*args, "--out", str(out)], tmp_path)
            if draw.random() < 0.75:  # else perhaps while files are opened or pictures are drawn
                wait_for_more(out, len(seen) + draw.randrange(4), process)
                time.sleep(draw.uniform(0, 0.05))
            else:
                time.sleep(draw.uniform(0, seconds))
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(process, signal.SIGKILL)
            complete = end(commands, tmp_path) == 0
            now = computed(out)
            assert now[: len(seen)] == seen
            seen = now
            killed += not complete
            between += not complete and 0 < len(seen) < len(computed(tmp_path / "undisturbed"))
        undisturbed(commands, [*args, "--out", str(out)], tmp_path)
        assert results(out) == wanted
    assert between > 0  # kills that found some computed, and some not


@pytest.mark.slow
@pytest.mark.parametrize(("compared", "changes"), [(False, 8), (True, 16)], ids=["analyze", "compare"])
def test_killed_at_each_change(
    compared: bool, changes: int, commands: WarmCommands, replicated: Path, tmp_path: Path
) -> None:
    args = arguments(replicated, compared, QUICK)

    def same(killed: Path, whole: Path) -> None:
        assert results(killed) == results(whole)

    killed = kill_at_changes(commands, lambda out: [*args, "--out", str(out)], same, tmp_path)
    assert killed >= changes
