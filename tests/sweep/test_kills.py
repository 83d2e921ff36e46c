"""Sweeps in processes of their own: killed at random moments, or at some changes of the folder, or two at once."""

import os
import random
import signal
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lnsgd.cli import main
from lnsgd.sweep import load
from lnsgd.sweep.folder import SweepFolder
from tests.faults.killed_runs import kill_at_changes
from tests.sweep.small_sweeps import DEADLINE, ORDINARY, assert_same_table, write_sweep
from tests.warm_commands import WarmCommands, wait_until_dead

STEPS = {"trainer.max_steps": 200}


def arguments(path: Path, out: Path) -> list[str]:
    return ["sweep", str(path), "--out", str(out), "--workers", "2"]


def undisturbed(path: Path, out: Path) -> float:
    """Runs a sweep in this process; gives how many seconds it took."""
    began = time.monotonic()
    main(arguments(path, out))
    return time.monotonic() - began


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
def test_killed_and_resumed(kills: int, widths: int, commands: WarmCommands, tmp_path: Path) -> None:
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
            process = commands.start(arguments(path, folder.path), tmp_path)
            if draw.random() < 0.8:  # else while it is planned
                wait_until_begun(folder, len(seen) + 1)
            time.sleep(draw.uniform(0, seconds / 3))  # it has begun, and imports nothing
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(process, signal.SIGKILL)
            code = commands.end()
            assert code in (0, -signal.SIGKILL)
            killed, complete = killed + (code != 0), code == 0
            wait_until_dead(process)
            now = pieces(folder)
            assert {job: now[job] for job in seen} == seen, "a job that was complete was run again"
            seen = now
        main(arguments(path, folder.path))
        now = pieces(folder)
        assert {job: now[job] for job in seen} == seen, "a job that was complete was run again"
        assert_same_table(folder.path, tmp_path / "undisturbed")
        assert (load(folder.path).attempts == 1).all()  # to be killed with all others is no failed attempt


# Two jobs of one cell make about 100 changes, one of two cells about 60; a kill at one of them takes 3 s.
@pytest.mark.slow
@pytest.mark.parametrize(("callbacks", "every"), [([ORDINARY], 17), ([], 9)], ids=["ordinary", "packed"])
def test_killed_at_some_changes(callbacks: list[Any], every: int, commands: WarmCommands, tmp_path: Path) -> None:
    """With its jobs: while it is planned, in training, and where a piece of the table is written."""
    path = write_sweep(tmp_path, seeds=2, callbacks=callbacks)
    killed = kill_at_changes(commands, lambda out: arguments(path, out), assert_same_table, tmp_path, every=every)
    assert killed >= 5


def test_two_sweeps_at_once_run_no_job_twice(commands: WarmCommands, tmp_path: Path) -> None:
    """Four jobs wait for each other: two that each sweep runs. Then there is one more for whoever comes first."""
    meet = {"class_path": "tests.sweep.small_sweeps.Meet", "init_args": {"folder": str(tmp_path / "met"), "number": 4}}
    path = write_sweep(tmp_path, callbacks=[meet], seeds=5)
    folder = SweepFolder(tmp_path / "out")
    commands.start(arguments(path, folder.path), tmp_path)
    wait_until_begun(folder, 2)
    undisturbed(path, folder.path)
    assert commands.end() == 0
    found = load(folder.path)
    assert found.status.tolist() == ["done"] * 5
    assert [folder.log(job).read_text().count("The run is in ") for job in found.job] == [1] * 5
    assert found.attempts.tolist() == [1] * 5
    assert [folder.read_attempts(job).begun for job in found.job] == [1] * 5
