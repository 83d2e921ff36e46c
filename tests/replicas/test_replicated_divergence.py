"""A replica that diverges is frozen and reported, and affects no other."""

import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lnsgd.replicas import Replica, ReplicaGrid
from tests.replicas.replicated_runs import (
    ENGINES,
    REGRESSION,
    assert_close,
    assert_same,
    measuring,
    parquet,
    rows_of,
    trainer_of,
    weights,
)

pytestmark = pytest.mark.usefixtures("quick_replicas")


# The first replica's learning rate is far too large.
WILD = [Replica(5, lr=1e200), Replica(6, lr=0.05), Replica(7, lr=0.05)]
SQUARED = replace(REGRESSION, momentum=0.9)


@ENGINES
def test_a_diverged_replica_affects_no_other(tmp_path: Path, engine: str) -> None:
    module, data = SQUARED.together(WILD, engine)
    with pytest.warns(UserWarning, match=r"replica 0 \(Replica\(seed=5.*diverged at step (\d+); it is frozen"):
        trainer_of(tmp_path, callbacks=measuring(every_n_steps=5)).fit(module, datamodule=data)
    at = int(module.frozen.diverged_at[0])
    assert 1 <= at <= 3
    assert module.frozen.diverged_at[1:].tolist() == [-1, -1]
    assert module.frozen.valid == [1, 2]
    others, data = SQUARED.together(WILD[1:], engine)
    trainer_of(max_epochs=3).fit(others, datamodule=data)
    for index in (0, 1):
        ours, theirs = module.replica(index + 1), others.replica(index)
        assert_same(weights(ours), weights(theirs)) if engine == "kernel" else assert_close(ours.net, theirs.net)


def test_a_diverged_replica_keeps_its_weights() -> None:
    """The replica has the weights of a run that ends at that step."""
    module, data = SQUARED.together(WILD)
    trainer_of(max_steps=9).fit(module, datamodule=data)
    shorter, data = SQUARED.together(WILD)
    trainer_of(max_steps=int(module.frozen.diverged_at[0])).fit(shorter, datamodule=data)
    torch.testing.assert_close(weights(module.replica(0)), weights(shorter.replica(0)), rtol=0, atol=0, equal_nan=True)


def test_a_diverged_replica_is_not_measured(tmp_path: Path) -> None:
    module, data = SQUARED.together(WILD)
    trainer_of(tmp_path, callbacks=measuring(every_n_steps=5)).fit(module, datamodule=data)
    rows = parquet(tmp_path)
    assert {row["step"] for row in rows if row["replica"] == 0} == {0}
    assert {row["step"] for row in rows if row["replica"] == 1} == {0, 5, 10, 15}
    assert all(math.isfinite(row["value"]) for row in rows if row["step"])
    metrics = rows_of(tmp_path)
    assert metrics[15]["diverged/lr=1e+200"] == 1
    assert metrics[15]["diverged/lr=0.05"] == 0
    assert "val/loss/lr=1e+200/mean" not in metrics[15]
    own = [row["value"] for row in rows if (row["step"], row["measure"], row["split"]) == (15, "loss", "train")]
    assert metrics[15]["loss/train/lr=0.05/mean"] == pytest.approx(statistics.fmean(own), rel=1e-12)


def test_statistics_of_a_group_without_its_diverged_replica(tmp_path: Path) -> None:
    """Replicas of one group differ in the seed alone; the learning rate is too large for some seeds."""
    replicas = ReplicaGrid(seeds=3).replicas(5)
    module, data = SQUARED.together(replicas)
    with torch.no_grad():
        for p in module.parameters():
            p[1] = 1e300
    trainer_of(tmp_path).fit(module, datamodule=data)
    assert module.frozen.diverged_at.tolist() == [-1, 0, -1]
    row = rows_of(tmp_path)[15]
    own = []
    for index in (0, 2):
        val = data.of_replica(index).splits["val"]
        net = module.replica(index)
        own.append(net.loss(net(val.inputs), val.labels).mean().item())
    assert row["diverged"] == 1
    assert row["val/loss/mean"] == pytest.approx(statistics.fmean(own), rel=1e-12)


@ENGINES
def test_training_stops_when_all_have_diverged(tmp_path: Path, engine: str) -> None:
    module, data = SQUARED.together([Replica(5, lr=1e200), Replica(6, lr=1e250)], engine, steps_per_call=4)
    trainer = trainer_of(tmp_path, max_steps=1000, callbacks=measuring(every_n_steps=5))
    with pytest.warns(UserWarning, match="all replicas have diverged"):
        trainer.fit(module, datamodule=data)
    assert trainer.global_step <= 8
    assert (module.frozen.diverged_at >= 0).all()


def test_divergence_survives_a_resume(tmp_path: Path) -> None:
    module, data = SQUARED.together(WILD)
    trainer = trainer_of(max_steps=7)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, data = SQUARED.together(WILD)
    trainer_of(max_steps=12).fit(resumed, datamodule=data, ckpt_path=tmp_path / "stopped.ckpt")
    whole, data = SQUARED.together(WILD)
    trainer_of(max_steps=12).fit(whole, datamodule=data)
    diverged = [run.frozen.diverged_at.tolist() for run in (resumed, whole, module)]
    assert diverged[0] == diverged[1] == diverged[2]
    assert_same(weights(resumed.replica(1)), weights(whole.replica(1)))
