"""Measurements and logs of a replicated run: each replica, and statistics of groups."""

import statistics
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from lnsgd import rng
from lnsgd.callbacks import ClassAssociation, HessianTrace
from lnsgd.data import InMemory
from lnsgd.measures import distance_from_init, performance
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.replicas import ReplicaGrid, ReplicatedData, ReplicatedModule
from tests.replicas.replicated_runs import (
    BATCH,
    CLASSES,
    ENGINES,
    MOMENTUM,
    SEEDS,
    Case,
    Fresh,
    N,
    assert_same,
    evaluated,
    examples,
    in_memory,
    measuring,
    parquet,
    rows_of,
    trainer_of,
    weights,
)

pytestmark = pytest.mark.usefixtures("quick_replicas")


class ByHand(Callback):
    """Measures every replica itself, from `ReplicatedModule.replica`."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int, str, str], float] = {}
        self.start: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, module: ReplicatedModule) -> None:
        self.start = [weights(module.replica(index)) for index in range(len(module.replicas))]
        self.on_train_batch_end(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: ReplicatedModule, *args: Any) -> None:
        for index in range(len(module.replicas)):
            own, data = module.replica(index), trainer.datamodule.of_replica(index)
            distance = distance_from_init(weights(own), self.start[index])
            self.found[trainer.global_step, index, "distance_from_init", ""] = distance.total
            for split in ("train", "val"):
                loader = data.measurement_dataloader(split, 9)
                fit = performance(own, own.loss, ((batch.inputs, batch.labels) for batch in loader))
                self.found[trainer.global_step, index, "loss", split] = fit.loss
                self.found[trainer.global_step, index, "error", split] = fit.error


@pytest.fixture(params=[in_memory, Fresh], ids=["shared-data", "own-data"])
def measured(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, ReplicatedModule, ByHand]:
    by_hand = ByHand()
    case = Case(request.param, {"batch_size": BATCH})
    module, data = case.together(ReplicaGrid(seeds=3, noise=[0.0, 0.5]).replicas(5))
    trainer_of(tmp_path, callbacks=[by_hand, *measuring(every_n_steps=4)]).fit(module, datamodule=data)
    return tmp_path, module, by_hand


def test_measures_of_each_replica(measured: tuple[Path, ReplicatedModule, ByHand]) -> None:
    folder, _, by_hand = measured
    rows = [row for row in parquet(folder) if row["measure"] != "active_fraction" and row["layer"] == ""]
    found = {(row["step"], row["replica"], row["measure"], row["split"]): row["value"] for row in rows}
    assert {step for step, *_ in found} == {0, 4, 8, 12, 15}
    assert {replica for _, replica, *_ in found} == set(range(6))
    compared = {key: value for key, value in found.items() if key in by_hand.found}
    assert len(compared) == 5 * 6 * 5
    assert compared == pytest.approx({key: by_hand.found[key] for key in compared}, rel=1e-12)


def test_loggers_get_mean_and_deviation_of_groups(measured: tuple[Path, ReplicatedModule, ByHand]) -> None:
    folder, _, _ = measured
    metrics = rows_of(folder)
    values: dict[tuple[int, str], dict[int, float]] = {}
    for row in parquet(folder):
        name = "/".join(part for part in (row["measure"], row["split"], row["layer"]) if part)
        values.setdefault((row["step"], name), {})[row["replica"]] = row["value"]
    assert len(values) > 50
    for (step, name), of_replica in values.items():
        for group, members in {"noise=0.0": (0, 1, 2), "noise=0.5": (3, 4, 5)}.items():
            own = [of_replica[index] for index in members]
            assert metrics[step][f"{name}/{group}/mean"] == pytest.approx(statistics.fmean(own), rel=1e-12)
            assert metrics[step][f"{name}/{group}/std"] == pytest.approx(statistics.stdev(own), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("make", [in_memory, Fresh], ids=["shared-data", "own-data"])
def test_totals_of_validation_and_test(tmp_path: Path, make: Any) -> None:
    module, data = Case(make, {"batch_size": BATCH, "eval_batch_size": 4}).together(ReplicaGrid(seeds=3).replicas(5))
    trainer = trainer_of(tmp_path)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    row = rows_of(tmp_path)[trainer.global_step]
    for split in ("val", "test"):
        own = [evaluated(module.replica(index), data.of_replica(index), split) for index in range(3)]
        for name, values in zip(("loss", "accuracy"), zip(*own)):
            assert row[f"{split}/{name}/mean"] == pytest.approx(statistics.fmean(values), rel=1e-12)
            assert row[f"{split}/{name}/std"] == pytest.approx(statistics.stdev(values), rel=1e-9, abs=1e-12)


def test_replicas_without_a_batch_do_not_count() -> None:
    """Each has its own validation set of two batches; only those of the first are evaluated."""
    module, data = Case(Fresh, {"batch_size": BATCH, "eval_batch_size": 7}).together(SEEDS)
    trainer = trainer_of(limit_val_batches=2)
    trainer.fit(module, datamodule=data)
    loss, _ = evaluated(module.replica(0), data.of_replica(0), "val")
    assert trainer.callback_metrics["val/loss/mean"].item() == pytest.approx(loss, rel=1e-6)
    assert "val/loss/std" not in trainer.callback_metrics


def test_splits_that_share_an_address() -> None:
    """Slices of one tensor share an address, but are other data."""
    inputs, labels = examples(N, 1)
    replicas = ReplicaGrid(seeds=2).replicas(5)
    data = ReplicatedData(InMemory((inputs[:9], labels[:9]), (inputs, labels), batch_size=2), replicas)
    module = ReplicatedModule(Case().template(), replicas)
    trainer = trainer_of()
    trainer.fit(module, datamodule=data)
    losses = [evaluated(module.replica(index), data.of_replica(index), "val")[0] for index in range(2)]
    assert trainer.callback_metrics["val/loss/mean"].item() == pytest.approx(statistics.fmean(losses), rel=1e-6)
    assert len(data.of_replica(0).splits["val"].inputs) == N


def test_data_sets_stay_apart_on_another_device() -> None:
    """The original tensor is gone there, and another may take its memory."""
    replicas = ReplicaGrid(seeds=20).replicas(0)
    data = ReplicatedData(Fresh(batch_size=BATCH), replicas)
    data.trainer = MagicMock()
    data.trainer.strategy.root_device = torch.device("meta")
    data.setup()
    for split in ("train", "val", "test"):
        assert len({id(data.of_replica(index).splits[split].pool) for index in range(20)}) == 20
    shared = ReplicatedData(in_memory(), replicas)
    shared.trainer = data.trainer
    shared.setup()
    assert len({id(shared.of_replica(index).splits["train"].pool) for index in range(20)}) == 1
    assert len({id(shared.of_replica(index).splits["train"].labels) for index in range(20)}) == 1


def test_training_loss_and_flips(tmp_path: Path) -> None:
    """It is logged ten times per decade of steps and at the end of an epoch, over the steps in between."""
    module, data = Case().together(ReplicaGrid(seeds=2).replicas(5))
    trainer_of(tmp_path).fit(module, datamodule=data)
    rows = rows_of(tmp_path)
    assert list(rows) == [1, 2, 3, 4, 5, 6, 8, 10, 13, 15]
    losses, flips = [], []
    for replica in module.replicas:
        watch = BatchTotals()
        alone = Case().template(replica)
        trainer_of(callbacks=[watch]).fit(alone, datamodule=Case().datamodule().variant(replica.seed))
        losses.append(watch.losses)
        flips.append(watch.flips)
    last = 0
    for step, row in rows.items():
        own = [statistics.fmean(of_run[last:step]) for of_run in losses]
        assert row["train/loss/mean"] == pytest.approx(statistics.fmean(own), rel=1e-10)
        assert row["train/loss/std"] == pytest.approx(statistics.stdev(own), rel=1e-8)
        rates = [torch.cat(of_run[last:step]).double().mean().item() for of_run in flips]
        assert row["train/flip_rate/mean"] == pytest.approx(statistics.fmean(rates), rel=1e-12)
        assert row["diverged"] == 0
        last = step


class BatchTotals(Callback):
    """Loss of every batch of a run alone, and which of its labels were flipped."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.flips: list[Tensor] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: SupervisedModule, batch: Any, *args: Any) -> None:
        noise = module.label_noise
        drawn = noise.draw((2**14,), rng.generator(module.seed, "noise", 0), CLASSES)
        seen = module.noisy_targets.examples_seen
        targets = noise.apply(batch.labels, drawn[seen : seen + len(batch.labels)], CLASSES)
        self.flips.append(targets != batch.labels)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *args: Any) -> None:
        self.losses.append(outputs["loss"].item())


@ENGINES
def test_measuring_changes_no_bit(tmp_path: Path, engine: str) -> None:
    def all_of_them(**schedule: Any) -> list[Callback]:
        subset = {"examples": 9, **schedule}
        return [
            *measuring(**schedule),
            HessianTrace(max_overhead=None, **subset),
            ClassAssociation(histograms=0, **subset),
        ]

    runs = []
    for callbacks in ([], all_of_them(every_n_steps=3), all_of_them(log_spaced=5)):
        module, data = MOMENTUM.together(SEEDS, engine)
        trainer_of(tmp_path, callbacks=callbacks).fit(module, datamodule=data)
        runs.append(weights(module))
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])
