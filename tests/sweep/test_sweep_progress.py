"""How far a job is, written to a file while it trains."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lnsgd.sweep.progress import SweepProgress, part_done
from lnsgd.writing import Throttle


def trainer(step: int, last: float, first: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, estimated_stepping_batches=last, is_global_zero=first)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress" / "j.json"


def test_the_part_of_the_steps_is_written(path, monkeypatch):
    due = False
    monkeypatch.setattr(Throttle, "due", lambda self: due)
    progress = SweepProgress(path)
    assert part_done(path) == 0.0
    progress.on_train_start(trainer(5, 20), None)
    assert part_done(path) == 0.25
    progress.on_train_batch_end(trainer(10, 20))
    assert part_done(path) == 0.25  # too soon
    due = True
    progress.on_train_batch_end(trainer(15, 20))
    assert json.loads(path.read_text()) == {"done": 0.75}
    progress.on_train_batch_end(trainer(25, 20))  # an epoch more than was estimated
    assert part_done(path) == 1.0


@pytest.mark.parametrize("last", [float("inf"), -1])
def test_a_run_that_ends_at_a_time_says_nothing(last, path):
    SweepProgress(path).on_train_start(trainer(5, last), None)
    assert not path.exists()


def test_one_process_writes_for_all(path):
    SweepProgress(path).on_train_start(trainer(5, 20, first=False), None)
    assert not path.exists()
