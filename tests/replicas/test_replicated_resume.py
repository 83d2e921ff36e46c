"""Stopped anywhere and resumed, a replicated run ends bit for bit as without the stop."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from lnsgd.replicas import ReplicaGrid, ReplicatedModule
from tests.replicas.replicated_runs import (
    ENGINES,
    EPOCH_STEPS,
    MOVING,
    SEEDS,
    Case,
    assert_same,
    measuring,
    parquet,
    rows_of,
    trainer_of,
    weights,
)
from tests.tolerances import EXACT

pytestmark = pytest.mark.usefixtures("quick_replicas")


STEPS = 3 * EPOCH_STEPS


class StoppedError(Exception):
    """Raised in the middle of training."""


class StopAfter(Callback):
    """Ends training at the end of the first call that reaches a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step >= self.step:
            raise StoppedError


def checkpoints(folder: Path, every: int) -> ModelCheckpoint:
    return ModelCheckpoint(folder / "checkpoints", filename="{step}", every_n_train_steps=every, save_top_k=-1)


@dataclass
class Run:
    """A finished run."""

    trainer: pl.Trainer
    module: ReplicatedModule
    folder: Path

    def assert_same(self, other: "Run") -> None:
        assert self.trainer.global_step == other.trainer.global_step
        assert self.trainer.current_epoch == other.trainer.current_epoch
        assert_same(weights(self.module), weights(other.module))
        assert_same(self.module.sgd.velocity, other.module.sgd.velocity)
        ours, theirs = rows_of(self.folder), rows_of(other.folder)
        assert list(ours) == list(theirs)
        for step, row in ours.items():
            # Sums of losses are cut where calls are, which hangs on the time that they take.
            assert row == theirs[step], step
        assert [row | {"stderr": 0} for row in parquet(self.folder)] == [
            row | {"stderr": 0} for row in parquet(other.folder)
        ]


def train(
    folder: Path,
    engine: str,
    *callbacks: Callback,
    checkpoint: Path | None = None,
    case: Case = MOVING,
    steps_per_call: int | None = None,
    **limits: Any,
) -> Run:
    module, data = case.together(ReplicaGrid(seeds=2, noise=[0.0, 0.5]).replicas(5), engine, steps_per_call)
    trainer = trainer_of(
        folder,
        checkpoint is not None,
        callbacks=[*measuring(every_n_steps=4), *callbacks],
        **limits,
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return Run(trainer, module, folder)


Undisturbed = Callable[[str], Run]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The run without a stop, by engine."""
    return cache(lambda engine: train(tmp_path_factory.mktemp(engine), engine))


@ENGINES
@pytest.mark.parametrize("stop", [1, 5, 7, 10, 12, 14])
def test_resumed_where_it_stopped(tmp_path: Path, undisturbed: Undisturbed, stop: int, engine: str) -> None:
    whole = undisturbed(engine)
    folder = tmp_path / "stopped"
    with pytest.raises(StoppedError):  # a step after the checkpoint: the run has to go back
        train(folder, engine, checkpoints(folder, stop), StopAfter(stop + 1), steps_per_call=1)
    resumed = train(folder, engine, checkpoint=folder / "checkpoints" / f"step={stop}.ckpt")
    resumed.assert_same(whole)


@pytest.mark.parametrize("stop", [3, 5, 12])
def test_resumed_in_a_run_limited_by_steps(tmp_path: Path, stop: int) -> None:
    whole = train(tmp_path / "whole", "kernel", max_steps=17)
    folder = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        train(folder, "kernel", checkpoints(folder, stop), StopAfter(stop + 1), steps_per_call=1, max_steps=17)
    path = folder / "checkpoints" / f"step={stop}.ckpt"
    train(folder, "kernel", checkpoint=path, max_steps=17).assert_same(whole)


@pytest.mark.parametrize("stop", [3, 6, 7, 12])
def test_resumed_before_and_after_the_noise_ended(tmp_path: Path, stop: int) -> None:
    case = replace(MOVING, noise_steps=7)
    whole = train(tmp_path / "whole", "kernel", case=case)
    folder = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        train(folder, "kernel", checkpoints(folder, stop), StopAfter(stop + 1), case=case, steps_per_call=1)
    train(folder, "kernel", checkpoint=folder / "checkpoints" / f"step={stop}.ckpt", case=case).assert_same(whole)


def test_resumed_from_the_end_of_an_epoch(tmp_path: Path, undisturbed: Undisturbed) -> None:
    whole = undisturbed("kernel")
    folder = tmp_path / "stopped"
    ends = ModelCheckpoint(folder / "checkpoints", filename="{epoch}", save_top_k=-1)
    with pytest.raises(StoppedError):
        train(folder, "kernel", ends, StopAfter(2 * EPOCH_STEPS + 2), steps_per_call=2)
    train(folder, "kernel", checkpoint=folder / "checkpoints" / "epoch=1.ckpt").assert_same(whole)


def test_continued_for_more_epochs(tmp_path: Path, undisturbed: Undisturbed) -> None:
    whole = undisturbed("kernel")
    folder = tmp_path / "stopped"
    train(folder, "kernel", max_epochs=2).trainer.save_checkpoint(folder / "ended.ckpt")
    longer = train(folder, "kernel", checkpoint=folder / "ended.ckpt")
    assert_same(weights(longer.module), weights(whole.module))
    assert longer.trainer.global_step == STEPS


@pytest.mark.parametrize("first", ["kernel", "general"])
def test_continued_with_the_other_engine(tmp_path: Path, undisturbed: Undisturbed, first: str) -> None:
    second = {"kernel": "general", "general": "kernel"}[first]
    whole = undisturbed(first)
    folder = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        train(folder, first, checkpoints(folder, 7), StopAfter(8))
    resumed = train(folder, second, checkpoint=folder / "checkpoints" / "step=7.ckpt")
    for name, value in weights(resumed.module).items():
        torch.testing.assert_close(value, weights(whole.module)[name], **EXACT)
    for name, value in resumed.module.sgd.velocity.items():
        torch.testing.assert_close(value, whole.module.sgd.velocity[name], **EXACT)


@ENGINES
def test_a_second_run_of_a_module_starts_over(tmp_path: Path, engine: str) -> None:
    """It starts from the weights of the first run, as for an ordinary module, without velocity, at step 0."""
    first, data = MOVING.together(SEEDS, engine)
    trainer_of(max_steps=7).fit(first, datamodule=data)
    other, _ = MOVING.together(SEEDS, engine)
    other.load_state_dict(first.state_dict())
    for name, module in {"again": first, "other": other}.items():
        trainer_of(tmp_path / name).fit(module, datamodule=data)
    assert_same(weights(first), weights(other))
    again, fresh = rows_of(tmp_path / "again"), rows_of(tmp_path / "other")
    assert list(again) == list(fresh)
    assert all(row == fresh[step] for step, row in again.items())
