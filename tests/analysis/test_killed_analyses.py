"""Analyses and comparisons in processes of their own, killed at random moments and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 120

QUICK = ["--measures", "Performance,ActiveNeurons,DistanceFromInit,WeightNorms,ImplicitRegularizer"]

# Also what makes pictures of its own.
ALL = ["--measures", "default,SpectralDensity"]
ALL += [f"--measures.SpectralDensity.{setting}" for setting in ("top=0", "probes=2", "steps=8")]


class Analyses:
    """Analyses, one at a time, each in a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "analyses.txt"
        self._warm = subprocess.Popen(
            [sys.executable, "-m", "tests.analysis.warm_analyses"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()  # it has imported everything

    def start(self, args: list[str]) -> int:
        """Its process id."""
        assert self._warm.stdin is not None
        self._warm.stdin.write(json.dumps(args) + "\n")
        self._warm.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """Its exit code, once it has ended."""
        code = int(self._line())
        assert code in (0, -signal.SIGKILL), self._log.read_text()
        return code

    def undisturbed(self, args: list[str]) -> float:
        """Seconds that it takes."""
        began = time.monotonic()
        self.start(args)
        assert self.end() == 0
        return time.monotonic() - began

    def _line(self) -> str:
        assert self._warm.stdout is not None
        return self._warm.stdout.readline()

    def close(self) -> None:
        assert self._warm.stdin is not None
        self._warm.stdin.close()
        self._warm.wait()


@pytest.fixture(scope="module")
def analyses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Analyses]:
    started = Analyses(tmp_path_factory.mktemp("kills"))
    yield started
    started.close()


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
    kills: int, measures: list[str], compared: bool, analyses: Analyses, replicated: Path, tmp_path: Path
) -> None:
    """Nothing is computed twice, and every file is the undisturbed one's, bit for bit."""
    inputs = ["--compare", str(replicated / "init.safetensors"), str(replicated)] if compared else [str(replicated)]
    args = [*inputs, *measures, "--accelerator", "cpu"]
    seconds = analyses.undisturbed([*args, "--out", str(tmp_path / "undisturbed")])
    wanted = results(tmp_path / "undisturbed")
    draw = random.Random(kills)
    killed, between, folders = 0, 0, count()
    while killed < kills:  # when one is complete, another begins
        out = tmp_path / f"killed-{next(folders)}"
        seen: list[bytes] = []
        complete = False
        while killed < kills and not complete:
            process = analyses.start([*args, "--out", str(out)])
            if draw.random() < 0.75:  # else perhaps while files are opened or pictures are drawn
                wait_for_more(out, len(seen) + draw.randrange(4), process)
                time.sleep(draw.uniform(0, 0.05))
            else:
                time.sleep(draw.uniform(0, seconds))
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(process, signal.SIGKILL)
            complete = analyses.end() == 0
            now = computed(out)
            assert now[: len(seen)] == seen
            seen = now
            killed += not complete
            between += not complete and 0 < len(seen) < len(computed(tmp_path / "undisturbed"))
        analyses.undisturbed([*args, "--out", str(out)])
        assert results(out) == wanted
    assert between > 0  # kills that found some computed, and some not
