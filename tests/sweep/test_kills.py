"""Sweeps in processes of their own: killed at random moments and resumed, or two of them at once."""

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

from lnsgd.cli import main
from lnsgd.sweep import load
from lnsgd.sweep.folder import SweepFolder
from tests.sweep.small_sweeps import DEADLINE, assert_same_table, write_sweep

ROOT = Path(__file__).parents[2]
STEPS = {"trainer.max_steps": 200}


class Sweeps:
    """Sweeps, one at a time, each in a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self._warm = subprocess.Popen(
            [sys.executable, "-m", "tests.sweep.warm_sweep"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, path: Path, out: Path) -> int:
        """Process id of the sweep's main process."""
        assert self._warm.stdin is not None
        self._warm.stdin.write(json.dumps([str(path), "--out", str(out), "--workers", "2"]) + "\n")
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


def undisturbed(path: Path, out: Path) -> float:
    """Runs a sweep in this process; gives how many seconds it took."""
    began = time.monotonic()
    main(["sweep", str(path), "--out", str(out), "--workers", "2"])
    return time.monotonic() - began


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


def wait_until_begun(folder: SweepFolder, attempts: int) -> None:
    """Until jobs have been begun so often in all, or there is nothing left to begin."""
    deadline = time.monotonic() + DEADLINE
    while True:
        jobs = folder.planned_jobs()
        complete = jobs and all(folder.piece(job).exists() for job in jobs)
        if complete or sum(folder.read_attempts(job).begun for job in jobs) >= attempts:
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


# 40 cells in eight jobs, and 10 in two: each job takes about a second.
@pytest.mark.parametrize(("kills", "widths"), [(2, 2), pytest.param(20, 8, marks=pytest.mark.slow)])
def test_killed_and_resumed(kills: int, widths: int, sweeps: Sweeps, tmp_path: Path) -> None:
    grid = {"model.net.widths": [[784, width, 10] for width in range(5, 5 + widths)]}
    path = write_sweep(tmp_path, options=STEPS, grid=grid, seeds=5)
    seconds = undisturbed(path, tmp_path / "undisturbed")
    draw = random.Random(kills)
    killed, folders = 0, count()
    while killed < kills:  # when a sweep is complete, another one begins
        folder = SweepFolder(tmp_path / f"killed-{next(folders)}")
        seen: dict[str, tuple[int, int]] = {}
        complete = False
        while killed < kills and not complete:
            process = sweeps.start(path, folder.path)
            if draw.random() < 0.8:  # else while it is planned
                wait_until_begun(folder, len(seen) + 1)
            time.sleep(draw.uniform(0, seconds / 3))  # it has begun, and imports nothing
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(process, signal.SIGKILL)
            code = sweeps.end()
            assert code in (0, -signal.SIGKILL)
            killed, complete = killed + (code != 0), code == 0
            wait_until_dead(process)
            now = pieces(folder)
            assert {job: now[job] for job in seen} == seen, "a job that was complete was run again"
            seen = now
        main(["sweep", str(path), "--out", str(folder.path), "--workers", "2"])
        now = pieces(folder)
        assert {job: now[job] for job in seen} == seen, "a job that was complete was run again"
        assert_same_table(folder.path, tmp_path / "undisturbed")
        assert (load(folder.path).attempts == 1).all()  # to be killed with all others is no failed attempt


def test_two_sweeps_at_once_run_no_job_twice(sweeps: Sweeps, tmp_path: Path) -> None:
    """Four jobs wait for each other: two that each sweep runs. Then there is one more for whoever comes first."""
    meet = {"class_path": "tests.sweep.small_sweeps.Meet", "init_args": {"folder": str(tmp_path / "met"), "number": 4}}
    path = write_sweep(tmp_path, callbacks=[meet], seeds=5)
    folder = SweepFolder(tmp_path / "out")
    sweeps.start(path, folder.path)
    wait_until_begun(folder, 2)
    undisturbed(path, folder.path)
    assert sweeps.end() == 0
    found = load(folder.path)
    assert found.status.tolist() == ["done"] * 5
    assert [folder.log(job).read_text().count("The run is in ") for job in found.job] == [1] * 5
    assert found.attempts.tolist() == [1] * 5
    assert [folder.read_attempts(job).begun for job in found.job] == [1] * 5
