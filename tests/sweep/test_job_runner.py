"""Running one job in this process: attempts, their outcomes, and other processes. Training is replaced by a fake."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lnsgd.records.jobs import Attempts, JobSpec, config_hash
from lnsgd.runs.errors import DivergedError
from lnsgd.sweep import job_runner
from lnsgd.sweep.folder import SweepFolder
from tests.sweep.small_sweeps import save_checkpoint_at

JOB = "j"


class FakeTraining:
    """Replaces `lnsgd.training.cli.train`: plays one event per call, and finishes the run after the last event."""

    def __init__(self, folder: SweepFolder, *events: Exception | Callable[[], None] | BaseException) -> None:
        self.folder, self.events, self.calls = folder, list(events), []

    def __call__(self, args, signals, callbacks) -> None:
        self.calls.append((args, list(sys.argv)))
        event = self.events.pop(0) if self.events else None
        if isinstance(event, BaseException):
            raise event
        if event is not None:
            event()
        run = self.folder.run(JOB)
        run.path.mkdir(parents=True, exist_ok=True)
        versions = {"lnsgd": "1", "torch": "2"}
        record = {"epochs": 1, "steps": 20, "seconds": 1.0, "device": "x", "versions": versions}
        run.finished.write_text(json.dumps(record))


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    config = tmp_path / "base.yaml"
    config.write_text("a: 1\n")
    made = SweepFolder(tmp_path / "out")
    configs = {str(config): config_hash(config)}
    made.write_job(JobSpec(JOB, [("c", {"x": 1})], configs, ["--x=1"], replicated=False, reason=""))
    return made


@pytest.fixture
def training(folder, monkeypatch):
    def play(*events) -> FakeTraining:
        fake = FakeTraining(folder, *events)
        monkeypatch.setattr(job_runner, "train", fake)
        return fake

    return play


def row(folder: SweepFolder) -> dict:
    (found,) = pd.read_parquet(folder.result(JOB)).to_dict("records")
    return found


def test_job_is_one_call_of_fit(folder, training):
    done, before = training(), list(sys.argv)
    job_runner.run_job(folder.path, JOB, 0)
    ((args, argv),) = done.calls
    config = str(folder.path.parent / "base.yaml")
    assert args[:4] == ["fit", "--config", config, "--x=1"]
    assert f"--run_dir={folder.run(JOB).path}" in args
    assert "--ckpt_path=auto" in args
    assert argv[1:] == args
    assert sys.argv == before
    assert (row(folder)["status"], row(folder)["attempts"]) == ("done", 1)
    assert not folder.is_running(JOB)


def test_job_with_result_does_not_run(folder, training):
    training()
    job_runner.run_job(folder.path, JOB, 0)
    again = training()
    job_runner.run_job(folder.path, JOB, 5)
    assert again.calls == []
    assert folder.read_attempts(JOB) == Attempts([0], [])


def test_job_is_repeated_after_an_error(folder, training):
    training(RuntimeError("no\nmemory"))
    job_runner.run_job(folder.path, JOB, 1)
    assert (row(folder)["status"], row(folder)["attempts"]) == ("done", 2)
    assert folder.read_attempts(JOB) == Attempts([0, 0], ["RuntimeError: no"])


def test_retries_are_limited_and_the_last_error_is_the_reason(folder, training):
    tried = training(RuntimeError("first"), ValueError("a = 2; give 1"), RuntimeError("never"))
    job_runner.run_job(folder.path, JOB, 1)
    assert len(tried.calls) == 2
    assert (row(folder)["status"], row(folder)["reason"], row(folder)["attempts"]) == ("failed", "a = 2; give 1", 2)


def test_run_that_advances_is_not_given_up(folder, training):
    """Only the last two attempts begin at the same step as the attempt before."""

    def fails_at(step: int) -> Callable[[], None]:
        def fail() -> None:
            save_checkpoint_at(folder, JOB, step)
            raise RuntimeError(f"after {step}")

        return fail

    tried = training(*(fails_at(step) for step in (5, 10, 15, 15, 15, 20)))
    job_runner.run_job(folder.path, JOB, 1)
    assert len(tried.calls) == 5
    assert (row(folder)["status"], row(folder)["reason"], row(folder)["attempts"]) == (
        "failed",
        "RuntimeError: after 15",
        5,
    )
    assert folder.read_attempts(JOB).starts == [0, 5, 10, 15, 15]


def test_attempts_of_earlier_processes_count(folder, training):
    folder.count_attempt(JOB)
    folder.note_error(JOB, "its process was killed")
    tried = training()
    job_runner.run_job(folder.path, JOB, 0)
    assert tried.calls == []
    assert (row(folder)["status"], row(folder)["reason"]) == ("failed", "its process was killed")


def test_job_with_changed_config_does_not_run(folder, training):
    (folder.path.parent / "base.yaml").write_text("a: 2\n")
    tried = training()
    job_runner.run_job(folder.path, JOB, 0)
    assert tried.calls == []
    assert "base.yaml has changed since the sweep was planned" in row(folder)["reason"]


def test_stop_on_request_does_not_count_as_attempt(folder, training):
    training(SystemExit(os.EX_TEMPFAIL))
    with pytest.raises(SystemExit) as ended:
        job_runner.run_job(folder.path, JOB, 0)
    assert ended.value.code == os.EX_TEMPFAIL
    assert not folder.result(JOB).exists()
    assert folder.read_attempts(JOB) == Attempts([], [])
    assert folder.begun(JOB)  # so it keeps its packing
    job_runner.run_job(folder.path, JOB, 0)
    assert row(folder)["attempts"] == 1


def test_job_that_another_process_runs_is_awaited(folder, training):
    """Afterwards the job is found done."""
    tried, locked = training(), threading.Event()

    def other() -> None:
        with folder.running(JOB):
            locked.set()
            time.sleep(0.3)
            folder.results.mkdir(parents=True)
            folder.result(JOB).touch()

    thread = threading.Thread(target=other)
    thread.start()
    locked.wait()
    job_runner.run_job(folder.path, JOB, 0)
    assert folder.result(JOB).exists()
    assert tried.calls == []
    thread.join()


def test_running_attempt_is_taken_back(folder, training):
    training(job_runner.take_back_attempts)
    job_runner.run_job(folder.path, JOB, 0)
    assert folder.read_attempts(JOB).begun == 0
    job_runner.take_back_attempts()  # no attempt is left
    assert folder.read_attempts(JOB).begun == 0


def test_attempt_is_taken_back_while_it_is_counted(folder, training, monkeypatch):
    """The sweep is killed after the attempt was counted on disk, before this process knows that it was counted."""
    count, thread = SweepFolder.count_attempt, threading.Thread(target=job_runner.take_back_attempts)

    def interrupted(self: SweepFolder, job: str) -> Attempts:
        found = count(self, job)
        thread.start()
        time.sleep(0.2)  # long enough for the thread, unless it waits
        return found

    monkeypatch.setattr(SweepFolder, "count_attempt", interrupted)
    training(thread.join)
    job_runner.run_job(folder.path, JOB, 0)
    assert folder.read_attempts(JOB).begun == 0


def test_attempt_with_result_is_not_taken_back(folder, training, monkeypatch):
    """The sweep is killed after the result was written, which contains one attempt."""
    training()
    monkeypatch.setattr(job_runner.gc, "collect", job_runner.take_back_attempts)
    job_runner.run_job(folder.path, JOB, 0)
    assert (row(folder)["attempts"], folder.read_attempts(JOB).begun) == (1, 1)


def test_diverged_run_is_not_repeated(folder, training):
    tried = training(DivergedError("the loss is nan at step 8", 7))
    job_runner.run_job(folder.path, JOB, 3)
    assert len(tried.calls) == 1
    found = row(folder)
    assert (found["status"], found["steps"], found["attempts"]) == ("diverged", 7, 1)
    assert found["reason"] == "diverged at step 7: the loss is nan at step 8"
    assert pd.read_parquet(folder.trajectories(JOB)).empty
