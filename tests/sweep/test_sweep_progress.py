"""The finished fraction of a job, written to a file while it trains."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lnsgd.records.jobs import read_progress
from lnsgd.runs.writing import Throttle
from lnsgd.sweep.progress import JobProgress


def trainer(step: int, last: float, first: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, estimated_stepping_batches=last, is_global_zero=first)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress" / "j.json"


def test_finished_fraction_is_written(path, monkeypatch):
    due = False
    monkeypatch.setattr(Throttle, "due", lambda self: due)
    progress = JobProgress(path)
    assert read_progress(path) == 0.0
    progress.on_train_start(trainer(5, 20), None)
    assert read_progress(path) == 0.25
    progress.on_train_batch_end(trainer(10, 20))
    assert read_progress(path) == 0.25  # too soon
    due = True
    progress.on_train_batch_end(trainer(15, 20))
    assert json.loads(path.read_text()) == {"done": 0.75}
    progress.on_train_batch_end(trainer(25, 20))  # one epoch more than estimated
    assert read_progress(path) == 1.0


@pytest.mark.parametrize("last", [float("inf"), -1])
def test_run_without_last_step_writes_nothing(last, path):
    JobProgress(path).on_train_start(trainer(5, last), None)
    assert not path.exists()


def test_only_the_first_process_writes(path):
    JobProgress(path).on_train_start(trainer(5, 20, first=False), None)
    assert not path.exists()
