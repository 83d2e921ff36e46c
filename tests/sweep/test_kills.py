"""A sweep that is killed at random moments and resumed ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lnsgd.sweep import load
from lnsgd.sweep.folder import SweepFolder
from tests.sweep.small_sweeps import assert_same_table, write_sweep

ROOT = Path(__file__).parents[2]
DEADLINE = 120

# 40 cells in eight jobs, each of about a second.
GRID = {"model.net.widths": [[784, width, 10] for width in range(5, 13)]}
SEEDS = 5


class Sweeps:
    """Sweeps of one file, one at a time, each in a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = write_sweep(folder, options={"trainer.max_steps": 200}, grid=GRID, seeds=SEEDS)
        self._warm = subprocess.Popen(
            [sys.executable, "-m", "tests.sweep.warm_sweep"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, out: str) -> int:
        """Process id of the sweep's main process."""
        assert self._warm.stdin is not None
        self._warm.stdin.write(json.dumps([str(self.path), "--out", out, "--workers", "2"]) + "\n")
        self._warm.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """Exit code, once the main process has ended."""
        return int(self._line())

    def _line(self) -> str:
        assert self._warm.stdout is not None
        return self._warm.stdout.readline()

    def close(self) -> None:
        assert self._warm.stdin is not None
        self._warm.stdin.close()
        self._warm.wait()


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweeps]:
    started = Sweeps(tmp_path_factory.mktemp("kills"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def undisturbed(sweeps: Sweeps) -> tuple[Path, float]:
    """Its folder, and how long it took."""
    began = time.monotonic()
    sweeps.start("undisturbed")
    assert sweeps.end() == 0
    return sweeps.folder / "undisturbed", time.monotonic() - began


def alive(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_until_dead(session: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while left := alive(session):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def pieces(folder: SweepFolder) -> dict[str, tuple[int, int]]:
    """When each piece was written, and how many attempts there were until then."""
    return {
        path.stem: (path.stat().st_mtime_ns, folder.read_attempts(path.stem).begun)
        for path in folder.pieces.glob("[!.]*.parquet")
    }


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_resumed(kills: int, sweeps: Sweeps, undisturbed: tuple[Path, float]) -> None:
    reference, seconds = undisturbed
    draw = random.Random(kills)
    killed = 0
    while killed < kills:  # when a sweep is complete, another one begins
        folder = SweepFolder(sweeps.folder / f"killed-{kills}-{killed}")
        seen: dict[str, tuple[int, int]] = {}
        code = -signal.SIGKILL
        while code != 0:
            process = sweeps.start(folder.path.name)
            if killed < kills:
                time.sleep(draw.uniform(0, seconds / 2))
                with suppress(ProcessLookupError):  # it has ended already
                    os.kill(process, signal.SIGKILL)
            code = sweeps.end()
            assert code in (0, -signal.SIGKILL)
            killed += code != 0
            wait_until_dead(process)
            now = pieces(folder)
            assert {job: now[job] for job in seen} == seen, "a job that was complete was run again"
            seen = now
        assert_same_table(folder.path, reference)
        assert (load(folder.path).attempts == 1).all()  # to be killed with all others is no failed attempt
