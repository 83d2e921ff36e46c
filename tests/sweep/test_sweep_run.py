"""Sweeps from Python that somebody else works on too. The jobs are stood in for."""

import io
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from lnsgd.sweep import run
from lnsgd.sweep.executor import Executor, Resources
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import read_sweep
from lnsgd.sweep.resolve import ConfigReader
from lnsgd.sweep.table import COLUMNS
from tests.sweep.small_sweeps import DEADLINE, write_sweep

# Long enough for somebody to plan who does not wait for anybody.
SECONDS_TO_PLAN = 1.0


class StandIn(Executor):
    """Runs nothing: notes the jobs, and does what it is told to with them."""

    def __init__(self, workers: int, then: Callable[[], object] = lambda: None) -> None:
        super().__init__(workers)
        self.at_once, self.then, self.jobs = workers, then, []

    def resources(self) -> Resources:
        return Resources(self.at_once, 8e9, gpu=False)

    def prepare(self) -> None:
        pass

    def run(self, folder: SweepFolder, jobs: Sequence[str], retries: int, watch: Callable[[], None]) -> bool:
        self.jobs = list(jobs)
        self.then()
        return True


def start(file: Path, folder: SweepFolder, executor: Executor, **options: bool) -> None:
    run.run_sweep(file, folder.path, executor, Console(file=io.StringIO()), **options)


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A sweep of six cells, whose configs are resolved once."""
    path = write_sweep(tmp_path, seeds=6)
    read, found = ConfigReader(read_sweep(path)), {}

    def remembered(options):
        if (key := json.dumps(options)) not in found:
            found[key] = read(options)
        return found[key]

    monkeypatch.setattr(run, "ConfigReader", lambda sweep: remembered)
    start(path, SweepFolder(tmp_path / "none"), StandIn(1), dry_run=True)
    return path


@pytest.fixture
def folder(tmp_path) -> SweepFolder:
    return SweepFolder(tmp_path / "out")


def test_two_sweeps_that_are_planned_at_the_same_moment_have_the_same_jobs(file, folder, monkeypatch):
    """Each would pack the cells in its own way. Whoever plans first waits with what follows until the other has too."""
    both_planned, both_run, plan = threading.Barrier(2), threading.Barrier(2), run.make_plan

    def meet(*given):
        found = plan(*given)
        with suppress(threading.BrokenBarrierError):
            both_planned.wait(SECONDS_TO_PLAN)
        return found

    monkeypatch.setattr(run, "make_plan", meet)
    sweeps = [StandIn(workers, lambda: both_run.wait(DEADLINE)) for workers in (2, 3)]
    threads = [threading.Thread(target=start, args=(file, folder, executor)) for executor in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, other = (sorted(executor.jobs) for executor in sweeps)
    assert one == other == folder.planned_jobs()
    assert sum(len(folder.read_job(job).cells) for job in one) == 6


def fail(folder: SweepFolder, job: str) -> None:
    folder.count_attempt(job)
    rows = [{**dict.fromkeys(COLUMNS), "cell": cell, "options": "{}"} for cell, _ in folder.read_job(job).cells]
    folder.pieces.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).assign(status="failed", job=job).astype(COLUMNS).to_parquet(folder.piece(job))


def test_what_has_failed_begins_anew_unless_somebody_runs_it(file, folder):
    first = StandIn(2)
    start(file, folder, first)
    failed, busy = first.jobs
    for job in first.jobs:
        fail(folder, job)
    again = StandIn(2)
    with folder.running(busy):
        start(file, folder, again, retry_failed=True)
    assert again.jobs == [failed]
    assert folder.piece(busy).exists()
    assert folder.read_attempts(busy).begun == 1
    assert not folder.begun(failed)


def test_what_is_run_after_it_was_seen_to_have_failed_is_left_alone(file, folder, monkeypatch):
    """Somebody else has begun it anew in the meantime, and it is done."""
    first = StandIn(1)
    start(file, folder, first)
    (job,) = first.jobs
    fail(folder, job)
    running = SweepFolder.running

    def done_meanwhile(self: SweepFolder, name: str):
        pd.read_parquet(self.piece(name)).assign(status="done").to_parquet(self.piece(name))
        return running(self, name)

    monkeypatch.setattr(SweepFolder, "running", done_meanwhile)
    again = StandIn(1)
    start(file, folder, again, retry_failed=True)
    assert again.jobs == []
    assert folder.piece(job).exists()
    assert folder.begun(job)
