"""One job in this process: attempts, what they end in, and who else is at it. Training itself is stood in for."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lnsgd.run_errors import DivergedError
from lnsgd.sweep import work
from lnsgd.sweep.attempts import Attempts
from lnsgd.sweep.folder import JobSpec, SweepFolder, config_hash
from tests.sweep.small_sweeps import stands_at

JOB = "j"


class Training:
    """Stands for `lnsgd.training.train`: does one thing after the other, at last finishes the run."""

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
    def befall(*events) -> Training:
        stand_in = Training(folder, *events)
        monkeypatch.setattr(work, "train", stand_in)
        return stand_in

    return befall


def row(folder: SweepFolder) -> dict:
    (found,) = pd.read_parquet(folder.piece(JOB)).to_dict("records")
    return found


def test_a_job_is_one_call_of_fit(folder, training):
    done, before = training(), list(sys.argv)
    work.run_job(folder.path, JOB, 0)
    ((args, argv),) = done.calls
    config = str(folder.path.parent / "base.yaml")
    assert args[:4] == ["fit", "--config", config, "--x=1"]
    assert f"--run_dir={folder.run(JOB).path}" in args
    assert "--ckpt_path=auto" in args
    assert argv[1:] == args
    assert sys.argv == before
    assert (row(folder)["status"], row(folder)["attempts"]) == ("done", 1)
    assert not folder.is_running(JOB)


def test_what_has_a_piece_is_left_alone(folder, training):
    training()
    work.run_job(folder.path, JOB, 0)
    again = training()
    work.run_job(folder.path, JOB, 5)
    assert again.calls == []
    assert folder.read_attempts(JOB) == Attempts([0], [])


def test_an_error_is_tried_again(folder, training):
    training(RuntimeError("no\nmemory"))
    work.run_job(folder.path, JOB, 1)
    assert (row(folder)["status"], row(folder)["attempts"]) == ("done", 2)
    assert folder.read_attempts(JOB) == Attempts([0, 0], ["RuntimeError: no"])


def test_retries_are_bounded_and_the_last_error_is_the_reason(folder, training):
    tried = training(RuntimeError("first"), ValueError("a = 2; give 1"), RuntimeError("never"))
    work.run_job(folder.path, JOB, 1)
    assert len(tried.calls) == 2
    assert (row(folder)["status"], row(folder)["reason"], row(folder)["attempts"]) == ("failed", "a = 2; give 1", 2)


def test_a_run_that_gets_on_is_not_given_up(folder, training):
    """Whatever becomes of its attempts: only the last two begin where the one before did."""

    def fails_at(step: int) -> Callable[[], None]:
        def fail() -> None:
            stands_at(folder, JOB, step)
            raise RuntimeError(f"after {step}")

        return fail

    tried = training(*(fails_at(step) for step in (5, 10, 15, 15, 15, 20)))
    work.run_job(folder.path, JOB, 1)
    assert len(tried.calls) == 5
    assert (row(folder)["status"], row(folder)["reason"], row(folder)["attempts"]) == (
        "failed",
        "RuntimeError: after 15",
        5,
    )
    assert folder.read_attempts(JOB).starts == [0, 5, 10, 15, 15]


def test_attempts_that_others_died_of_count(folder, training):
    folder.count_attempt(JOB)
    folder.note_error(JOB, "its process was killed")
    tried = training()
    work.run_job(folder.path, JOB, 0)
    assert tried.calls == []
    assert (row(folder)["status"], row(folder)["reason"]) == ("failed", "its process was killed")


def test_a_config_that_has_changed_is_not_run(folder, training):
    (folder.path.parent / "base.yaml").write_text("a: 2\n")
    tried = training()
    work.run_job(folder.path, JOB, 0)
    assert tried.calls == []
    assert "base.yaml has changed since the sweep was planned" in row(folder)["reason"]


def test_stopped_on_request_is_no_attempt(folder, training):
    training(SystemExit(os.EX_TEMPFAIL))
    with pytest.raises(SystemExit) as ended:
        work.run_job(folder.path, JOB, 0)
    assert ended.value.code == os.EX_TEMPFAIL
    assert not folder.piece(JOB).exists()
    assert folder.read_attempts(JOB) == Attempts([], [])
    assert folder.begun(JOB)  # it keeps its packing
    work.run_job(folder.path, JOB, 0)
    assert row(folder)["attempts"] == 1


def test_it_waits_for_whoever_runs_the_job(folder, training):
    """And finds it done."""
    tried, locked = training(), threading.Event()

    def other() -> None:
        with folder.running(JOB):
            locked.set()
            time.sleep(0.3)
            folder.pieces.mkdir(parents=True)
            folder.piece(JOB).touch()

    thread = threading.Thread(target=other)
    thread.start()
    locked.wait()
    work.run_job(folder.path, JOB, 0)
    assert folder.piece(JOB).exists()
    assert tried.calls == []
    thread.join()


def test_an_attempt_is_taken_back_while_it_lasts(folder, training):
    training(work.take_back_attempts)
    work.run_job(folder.path, JOB, 0)
    assert folder.read_attempts(JOB).begun == 0
    work.take_back_attempts()  # there is none any more
    assert folder.read_attempts(JOB).begun == 0


def test_an_attempt_is_taken_back_even_while_it_is_being_counted(folder, training, monkeypatch):
    """The sweep is killed between the count on disk and the note that this process has counted."""
    count, thread = SweepFolder.count_attempt, threading.Thread(target=work.take_back_attempts)

    def interrupted(self: SweepFolder, job: str) -> Attempts:
        found = count(self, job)
        thread.start()
        time.sleep(0.2)  # what would be enough for it
        return found

    monkeypatch.setattr(SweepFolder, "count_attempt", interrupted)
    training(thread.join)
    work.run_job(folder.path, JOB, 0)
    assert folder.read_attempts(JOB).begun == 0


def test_what_has_ended_is_not_taken_back(folder, training, monkeypatch):
    """The sweep is killed after the piece was written, which says that there was one attempt."""
    training()
    monkeypatch.setattr(work.gc, "collect", work.take_back_attempts)
    work.run_job(folder.path, JOB, 0)
    assert (row(folder)["attempts"], folder.read_attempts(JOB).begun) == (1, 1)


def test_a_run_that_has_diverged_is_not_tried_again(folder, training):
    tried = training(DivergedError("the loss is nan at step 8", 7))
    work.run_job(folder.path, JOB, 3)
    assert len(tried.calls) == 1
    found = row(folder)
    assert (found["status"], found["steps"], found["attempts"]) == ("diverged", 7, 1)
    assert found["reason"] == "diverged at step 7: the loss is nan at step 8"
    assert pd.read_parquet(folder.trajectories(JOB)).empty
