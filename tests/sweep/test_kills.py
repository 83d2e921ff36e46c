"""Sweeps in separate processes that are killed, at random or at changes of the folder, or run two at once."""

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


def run_undisturbed(path: Path, out: Path) -> float:
    """Run a sweep in this process, and return its seconds."""
    began = time.monotonic()
    main(arguments(path, out))
    return time.monotonic() - began


def written_results(folder: SweepFolder) -> dict[str, tuple[int, int]]:
    """Return when the result of each job was written, and the number of attempts until then."""
    return {
        path.stem: (path.stat().st_mtime_ns, folder.read_attempts(path.stem).begun)
        for path in folder.results.glob("[!.]*.parquet")
    }


def wait_until_begun(folder: SweepFolder, attempts: int) -> None:
    """Wait until jobs have been started a number of times in total, or all have ended."""
    deadline = time.monotonic() + DEADLINE
    while True:
        jobs = folder.planned_jobs()
        complete = jobs and all(folder.result(job).exists() for job in jobs)
        if complete or sum(folder.read_attempts(job).begun for job in jobs) >= attempts:
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


# 40 cells in eight jobs, and 10 in two: each job takes about a second.
@pytest.mark.parametrize(("kills", "widths"), [(2, 2), pytest.param(20, 8, marks=pytest.mark.slow)])
def test_table_is_the_same_after_random_kills(kills: int, widths: int, commands: WarmCommands, tmp_path: Path) -> None:
    grid = {"model.net.widths": [[784, width, 10] for width in range(5, 5 + widths)]}
    path = write_sweep(tmp_path, options=STEPS, grid=grid, seeds=5)
    seconds = run_undisturbed(path, tmp_path / "undisturbed")
    draw = random.Random(kills)
    killed, folders = 0, count()
    while killed < kills:  # after a sweep is complete, another one starts
        folder = SweepFolder(tmp_path / f"killed-{next(folders)}")
        seen: dict[str, tuple[int, int]] = {}
        complete = False
        while killed < kills and not complete:
            process = commands.start(arguments(path, folder.path), tmp_path)
            if draw.random() < 0.8:  # otherwise it is killed while it is planned
                wait_until_begun(folder, len(seen) + 1)
            time.sleep(draw.uniform(0, seconds / 3))  # the command has already imported everything
            with suppress(ProcessLookupError):  # it has already ended
                os.kill(process, signal.SIGKILL)
            code = commands.end()
            assert code in (0, -signal.SIGKILL)
            killed, complete = killed + (code != 0), code == 0
            wait_until_dead(process)
            now = written_results(folder)
            assert {job: now[job] for job in seen} == seen, "a complete job was run again"
            seen = now
        main(arguments(path, folder.path))
        now = written_results(folder)
        assert {job: now[job] for job in seen} == seen, "a complete job was run again"
        assert_same_table(folder.path, tmp_path / "undisturbed")
        assert (load(folder.path).attempts == 1).all()  # to be killed with the sweep does not count as an attempt


# Two jobs of one cell make about 100 changes, one job of two cells about 60; each kill takes 3 s.
@pytest.mark.slow
@pytest.mark.parametrize(("callbacks", "every"), [([ORDINARY], 17), ([], 9)], ids=["ordinary", "packed"])
def test_table_is_the_same_after_kills_at_changes_of_the_folder(
    callbacks: list[Any], every: int, commands: WarmCommands, tmp_path: Path
) -> None:
    """The sweep is killed with its jobs: while it is planned, in training, and when a result is written."""
    path = write_sweep(tmp_path, seeds=2, callbacks=callbacks)
    killed = kill_at_changes(commands, lambda out: arguments(path, out), assert_same_table, tmp_path, every=every)
    assert killed >= 5


def test_two_sweeps_at_once_run_each_job_once(commands: WarmCommands, tmp_path: Path) -> None:
    """Four jobs wait for each other, two of each sweep; one more job is left for either of them."""
    meet = {
        "class_path": "tests.sweep.small_sweeps.Rendezvous",
        "init_args": {"folder": str(tmp_path / "met"), "number": 4},
    }
    path = write_sweep(tmp_path, callbacks=[meet], seeds=5)
    folder = SweepFolder(tmp_path / "out")
    commands.start(arguments(path, folder.path), tmp_path)
    wait_until_begun(folder, 2)
    run_undisturbed(path, folder.path)
    assert commands.end() == 0
    found = load(folder.path)
    assert found.status.tolist() == ["done"] * 5
    assert [folder.log(job).read_text().count("The run is in ") for job in found.job] == [1] * 5
    assert found.attempts.tolist() == [1] * 5
    assert [folder.read_attempts(job).begun for job in found.job] == [1] * 5
