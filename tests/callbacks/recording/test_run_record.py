"""How long a run took: counted over all its parts, and only while it trains."""

import json
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from lnsgd.callbacks.recording import run_record
from lnsgd.callbacks.recording.run_record import RunRecord
from lnsgd.data import InMemory
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.runs.folder import RunFolder


class Clock:
    """A clock that advances only on request."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class StepsTake(Callback):
    """Every step takes so many seconds; training is interrupted after some of them."""

    def __init__(self, clock: Clock, seconds: float, interrupt_at: int | None = None) -> None:
        self.clock, self.seconds, self.interrupt_at = clock, seconds, interrupt_at

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        self.clock.now += self.seconds
        if trainer.global_step == self.interrupt_at:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "last.ckpt")
            raise KeyboardInterrupt


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_record, "time", clock)
    return clock


def fit(folder: Path, steps_take: StepsTake, checkpoint: Path | None = None) -> RunFolder:
    """Three steps."""
    torch.manual_seed(0)
    run = RunFolder(folder / "run")
    record = RunRecord(run, "config: it\n", {})
    steps_take.clock.now += 50  # building the model does not count
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        callbacks=[record, steps_take],
    )
    data = InMemory((torch.randn(6, 4), torch.randint(3, (6,))), batch_size=2)
    interrupted = pytest.raises(SystemExit) if steps_take.interrupt_at else nullcontext()
    with interrupted:
        trainer.fit(Classifier(MLP([4, 5, 3])), datamodule=data, ckpt_path=checkpoint)
    return run


def test_seconds_of_a_run(tmp_path: Path, clock: Clock) -> None:
    run = fit(tmp_path, StepsTake(clock, 2.0))
    ended = json.loads(run.finished.read_text())
    assert (ended["steps"], ended["seconds"]) == (3, 6.0)
    assert ended["threads"] == torch.get_num_threads()


def test_when_a_run_ended(tmp_path: Path, clock: Clock) -> None:
    """In coordinated universal time, which the text says."""
    before = datetime.now(UTC).replace(microsecond=0)
    run = fit(tmp_path, StepsTake(clock, 2.0))
    ended = datetime.fromisoformat(json.loads(run.finished.read_text())["ended"])
    assert before <= ended <= datetime.now(UTC)
    assert ended.utcoffset() == timedelta(0)


def test_seconds_accumulate_over_a_resume(tmp_path: Path, clock: Clock) -> None:
    run = fit(tmp_path, StepsTake(clock, 2.0, interrupt_at=2))
    assert not run.finished.exists()
    clock.now += 3600  # an hour lies between
    fit(tmp_path, StepsTake(clock, 10.0), tmp_path / "last.ckpt")
    ended = json.loads(run.finished.read_text())
    assert (ended["steps"], ended["seconds"]) == (3, 2 * 2.0 + 10.0)
