"""The progress bar of a replicated run counts SGD steps."""

import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from lnsgd.callbacks.step_progress_bar import StepProgressBar
from lnsgd.data import InMemory
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.replicas import Replica, ReplicatedData, ReplicatedModule

REPLICAS = [Replica(0), Replica(1)]
EPOCH_STEPS = 6


class Seen(Callback):
    """A callback that records the bar at the start, after every call, and at the end."""

    def __init__(self) -> None:
        self.initial: int | None = None
        self.counts: list[tuple[int, int]] = []
        self.total: int | None = None
        self.text = ""

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        bar = trainer.progress_bar_callback.train_progress_bar
        self.initial = bar.initial
        self.counts.append((trainer.global_step, bar.n))

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        bar = trainer.progress_bar_callback.train_progress_bar
        self.counts.append((trainer.global_step, bar.n))
        self.total, self.text = bar.total, "" if bar.disable else str(bar)


def run(folder: Path, checkpoint: Path | None = None, bar: StepProgressBar | None = None, **limits: Any) -> Seen:
    torch.manual_seed(0)
    tensors = torch.randn(12, 4), torch.randint(3, (12,))
    data = ReplicatedData(InMemory(tensors, batch_size=2), REPLICAS)
    seen = Seen()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[bar or StepProgressBar(), seen],
        **limits,
    )
    module = ReplicatedModule(Classifier(MLP([4, 5, 3])), REPLICAS, steps_per_call=4)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / "end.ckpt")
    return seen


LIMITS = {
    "epochs": ({"max_epochs": 3}, 3 * EPOCH_STEPS),
    "steps": ({"max_steps": 20}, 20),
    "steps-before-epochs": ({"max_epochs": 9, "max_steps": 20}, 20),
    "epochs-before-steps": ({"max_epochs": 2, "max_steps": 20}, 2 * EPOCH_STEPS),
}


@pytest.mark.parametrize(("limits", "steps"), LIMITS.values(), ids=LIMITS)
def test_bar_counts_the_steps_of_the_whole_run(tmp_path: Path, limits: dict[str, int], steps: int) -> None:
    seen = run(tmp_path, **limits)
    assert seen.total == steps
    assert seen.counts[0] == (0, 0)
    assert seen.counts[-1] == (steps, steps)
    assert all(shown == taken for taken, shown in seen.counts)
    assert re.search(rf"^Training: 100%.* <00:00 {steps}/{steps} in \d\d:\d\d +[\d.]+k?step/s", seen.text), seen.text
    assert "train/loss=" in seen.text


def test_bar_of_a_resumed_run_starts_at_its_step(tmp_path: Path) -> None:
    run(tmp_path, max_steps=8)
    seen = run(tmp_path, tmp_path / "end.ckpt", max_steps=20)
    assert seen.initial == 8  # the rate is that of the steps taken since
    assert seen.counts[0] == (8, 8)
    assert seen.counts[-1] == (20, 20)
    assert seen.total == 20


def test_run_without_an_end_has_no_total(tmp_path: Path) -> None:
    class Stop(StepProgressBar):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            super().on_train_batch_end(trainer, *args)
            trainer.should_stop = trainer.global_step >= 10

    seen = run(tmp_path, bar=Stop(), max_epochs=-1)
    assert seen.total is None
    assert seen.counts[-1][0] == seen.counts[-1][1] >= 10


def test_bar_can_be_switched_off(tmp_path: Path) -> None:
    seen = run(tmp_path, bar=StepProgressBar(refresh_rate=0), max_steps=8)
    assert seen.counts[-1][0] == 8
    assert seen.text == ""
