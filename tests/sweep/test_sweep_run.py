"""Sweeps in a folder that another process also uses, with an executor that runs nothing."""

import io
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from lnsgd.records.cells import COLUMNS
from lnsgd.sweep import run
from lnsgd.sweep.config_reader import ConfigReader
from lnsgd.sweep.executors.base import Executor, Resources
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import read_sweep
from tests.sweep.small_sweeps import DEADLINE, write_sweep

# Long enough to plan, for a sweep that does not wait for others.
SECONDS_TO_PLAN = 1.0


class FakeExecutor(Executor):
    """Runs nothing: records the jobs and calls an action."""

    def __init__(self, workers: int, action: Callable[[], object] = lambda: None) -> None:
        super().__init__(workers)
        self.at_once, self.action, self.jobs = workers, action, []

    def resources(self) -> Resources:
        return Resources(self.at_once, 8e9, gpu=False)

    def prepare(self) -> None:
        pass

    def run(self, folder: SweepFolder, jobs: Sequence[str], retries: int, watch: Callable[[], None]) -> bool:
        self.jobs = list(jobs)
        self.action()
        return True


def start(file: Path, folder: SweepFolder, executor: Executor, **options: bool) -> None:
    run.run_sweep(file, folder.path, executor, Console(file=io.StringIO()), **options)


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """Write a sweep of six cells, whose configs are resolved once."""
    path = write_sweep(tmp_path, seeds=6)
    read, found = ConfigReader(read_sweep(path)), {}

    def remembered(options):
        if (key := json.dumps(options)) not in found:
            found[key] = read(options)
        return found[key]

    monkeypatch.setattr(run, "ConfigReader", lambda sweep: remembered)
    start(path, SweepFolder(tmp_path / "none"), FakeExecutor(1), dry_run=True)
    return path


@pytest.fixture
def folder(tmp_path) -> SweepFolder:
    return SweepFolder(tmp_path / "out")


def test_two_sweeps_planned_at_once_have_the_same_jobs(file, folder, monkeypatch):
    """Each would pack the cells differently. The first to plan waits until the other has planned, too."""
    both_planned, both_run, plan = threading.Barrier(2), threading.Barrier(2), run.make_plan

    def meet(*given):
        found = plan(*given)
        with suppress(threading.BrokenBarrierError):
            both_planned.wait(SECONDS_TO_PLAN)
        return found

    monkeypatch.setattr(run, "make_plan", meet)
    sweeps = [FakeExecutor(workers, lambda: both_run.wait(DEADLINE)) for workers in (2, 3)]
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
    folder.results.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).assign(status="failed", job=job).astype(COLUMNS).to_parquet(folder.result(job))


def test_failed_job_runs_again_unless_another_process_runs_it(file, folder):
    first = FakeExecutor(2)
    start(file, folder, first)
    failed, busy = first.jobs
    for job in first.jobs:
        fail(folder, job)
    again = FakeExecutor(2)
    with folder.running(busy):
        start(file, folder, again, retry_failed=True)
    assert again.jobs == [failed]
    assert folder.result(busy).exists()
    assert folder.read_attempts(busy).begun == 1
    assert not folder.begun(failed)


def test_failed_job_that_was_done_meanwhile_is_kept(file, folder, monkeypatch):
    """Another process has repeated it, and it has succeeded."""
    first = FakeExecutor(1)
    start(file, folder, first)
    (job,) = first.jobs
    fail(folder, job)
    running = SweepFolder.running

    def done_meanwhile(self: SweepFolder, name: str):
        pd.read_parquet(self.result(name)).assign(status="done").to_parquet(self.result(name))
        return running(self, name)

    monkeypatch.setattr(SweepFolder, "running", done_meanwhile)
    again = FakeExecutor(1)
    start(file, folder, again, retry_failed=True)
    assert again.jobs == []
    assert folder.result(job).exists()
    assert folder.begun(job)
