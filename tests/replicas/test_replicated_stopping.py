"""A rule stops a replica at the step of a plain loop and of its run alone; the replica then keeps its weights."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from lnsgd.callbacks import DistanceFromInit, StopAtLoss, StopAtMargin, StopAtZeroError
from lnsgd.callbacks.stopping.rule import StoppingRule
from lnsgd.losses import LogisticLoss
from lnsgd.replicas import Replica, ReplicaGrid, ReplicatedModule
from tests.replicas.replicated_runs import (
    ENGINES,
    MOMENTUM,
    REGRESSION,
    Case,
    assert_same,
    parquet,
    rows_of,
    trainer_of,
    weights,
)
from tests.tolerances import EXACT

pytestmark = pytest.mark.usefixtures("quick_replicas")


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to the folder in which runs without a folder of their own write."""
    (tmp_path / "started-in").mkdir()
    monkeypatch.chdir(tmp_path / "started-in")


# Two seeds, with and without label noise, which makes a run stop late or never.
REPLICAS = ReplicaGrid(seeds=2, noise=[0.0, 0.4]).replicas(5)
CASE = replace(MOMENTUM, widths=(5, 60, 3), lr=0.1)
EPOCHS, EPOCH_STEPS = 16, 5
STEPS = EPOCHS * EPOCH_STEPS


def loss_by_hand(outputs: Tensor, labels: Tensor) -> float:
    return LogisticLoss()(outputs, labels).mean().item()


def reach_by_hand(outputs: Tensor, labels: Tensor) -> float:
    """The margin that at least 70 % of the examples have."""
    found = []
    for own, label in zip(outputs.tolist(), labels.tolist()):
        found.append(own.pop(label) - max(own))
    return sorted(found, reverse=True)[math.ceil(0.7 * len(found)) - 1]


def error_by_hand(outputs: Tensor, labels: Tensor) -> float:
    return (outputs.argmax(1) != labels).double().mean().item()


class Trajectory(Callback):
    """Numbers of an ordinary run after every step, by hand."""

    def __init__(self, number: Callable[[Tensor, Tensor], float]) -> None:
        self.number = number
        self.values: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.on_train_batch_end(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        train = trainer.datamodule.splits["train"]
        with torch.no_grad():
            self.values.append(self.number(module(train.inputs), train.labels))


@cache
def trajectories(number: Callable[[Tensor, Tensor], float]) -> list[list[float]]:
    found = []
    for replica in REPLICAS:
        trajectory = Trajectory(number)
        CASE.alone(replica, callbacks=[trajectory], max_epochs=EPOCHS)
        found.append(trajectory.values)
    return found


@dataclass(frozen=True)
class RuleCase:
    """A rule, and what it does by hand.

    Attributes:
        rule: From its schedule.
        number: What decides.
        holds: Whether a number is enough.
        in_a_row: How often.
    """

    rule: Callable[..., StoppingRule]
    number: Callable[[Tensor, Tensor], float]
    holds: Callable[[float], bool]
    in_a_row: int = 1

    def stops(self, due: list[int]) -> list[int | None]:
        """Where the replicas stop: at the first due step after which it held often enough."""
        found = []
        for values in trajectories(self.number):
            held, stop = 0, None
            for step in due:
                held = held + 1 if self.holds(values[step]) else 0
                if held == self.in_a_row:
                    stop = step
                    break
            found.append(stop)
        return found


# Thresholds between numbers of the trajectories.
RULES = {
    "loss": RuleCase(lambda **s: StopAtLoss(1.37, **s), loss_by_hand, lambda value: value <= 1.37),
    "margin": RuleCase(lambda **s: StopAtMargin(0.25, 0.7, **s), reach_by_hand, lambda value: value >= 0.25),
    "error": RuleCase(lambda **s: StopAtZeroError(3, **s), error_by_hand, lambda value: value == 0, 3),
}
SCHEDULES = {
    "every-step": ({"every_n_steps": 1}, [*range(STEPS + 1)]),
    "every-third": ({"every_n_steps": 3}, [*range(0, STEPS + 1, 3)]),
    "every-epoch": ({}, [*range(0, STEPS + 1, EPOCH_STEPS)]),
}


@cache
def limited(index: int, steps: int) -> dict[str, Tensor]:
    """Weights of the run of a replica alone that is limited to so many steps."""
    return weights(CASE.alone(REPLICAS[index], max_steps=steps, max_epochs=None))


def together(
    *callbacks: Callback,
    engine: str = "kernel",
    folder: Path | None = None,
    checkpoint: Path | None = None,
    case: Case = CASE,
    replicas: Sequence[Replica] = REPLICAS,
    **limits: Any,
) -> ReplicatedModule:
    module, data = case.together(replicas, engine)
    settings = {"max_epochs": EPOCHS} | limits
    trainer_of(folder, checkpoint is not None, callbacks=[*callbacks], **settings).fit(
        module, datamodule=data, ckpt_path=checkpoint
    )
    return module


def stops_of(module: ReplicatedModule) -> list[int | None]:
    return [step if step >= 0 else None for step in module.frozen.stopped_at.tolist()]


def assert_ends_at(module: ReplicatedModule, stops: list[int | None]) -> None:
    """Where a run that is limited to so many steps ends."""
    last = STEPS if None in stops else max(stops)
    assert module.trainer.global_step == last
    for index, stop in enumerate(stops):
        expected = limited(index, last if stop is None else stop)
        for name, value in weights(module.replica(index)).items():
            torch.testing.assert_close(value, expected[name], **EXACT)


@pytest.mark.parametrize(
    ("engine", "schedule"), [("kernel", "every-third"), ("kernel", "every-epoch"), ("general", "every-third")]
)
@pytest.mark.parametrize("rule", RULES)
def test_a_replica_stops_at_the_step_of_a_plain_loop(engine: str, rule: str, schedule: str) -> None:
    options, due = SCHEDULES[schedule]
    stops = RULES[rule].stops(due)
    assert any(stops), "none would stop"
    module = together(RULES[rule].rule(**options), engine=engine)
    assert stops_of(module) == stops
    assert module.frozen.stopped_by == {i: type(RULES[rule].rule()).__name__ for i, at in enumerate(stops) if at}
    assert_ends_at(module, stops)


def test_the_cases_differ() -> None:
    """Some rules stop all replicas, some only a few, and at different steps."""
    stops = [rule.stops(due) for rule in RULES.values() for _, due in SCHEDULES.values()]
    assert any(None not in found for found in stops) and any(None in found for found in stops)
    assert any(len({*found} - {None}) > 1 for found in stops)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("schedule", ["every-third", "every-epoch"])
def test_a_run_alone_stops_at_the_same_step(rule: str, schedule: str) -> None:
    options, due = SCHEDULES[schedule]
    stops = RULES[rule].stops(due)
    for index in (0, 3):
        callback = RULES[rule].rule(**options)
        module = CASE.alone(REPLICAS[index], callbacks=[callback], max_epochs=EPOCHS)
        assert callback.stopped_at == stops[index]
        assert module.trainer.global_step == (stops[index] or STEPS)
        assert_same(weights(module), limited(index, stops[index] or STEPS))


def test_epochs_are_counted_in_a_run_of_one_epoch() -> None:
    """The only epoch of Lightning ends with the run; the same run alone has many epochs."""
    stops = RULES["loss"].stops(SCHEDULES["every-epoch"][1])
    module = together(StopAtLoss(1.37), max_epochs=None, max_steps=STEPS)
    assert stops_of(module) == stops
    assert_ends_at(module, stops)
    module = together(StopAtLoss(1.37, every_n_epochs=2), max_epochs=-1, max_steps=STEPS)
    assert stops_of(module) == RULES["loss"].stops([*range(0, STEPS + 1, 2 * EPOCH_STEPS)])


def test_a_stopped_replica_is_still_measured(tmp_path: Path) -> None:
    third = {"every_n_steps": 3}
    module = together(StopAtMargin(0.25, 0.7, **third), DistanceFromInit(**third), folder=tmp_path)
    stops = stops_of(module)
    assert None in stops and any(stops)
    rows = {
        (row["replica"], row["step"], row["measure"]): row["value"] for row in parquet(tmp_path) if not row["layer"]
    }
    for measure in ("stopping_margin_fraction", "distance_from_init"):
        for index, stop in enumerate(stops):
            values = [rows[index, step, measure] for step in [*range(0, STEPS, 3), STEPS]]
            assert len({*values}) > 3
            if stop is not None:
                assert {*values[stop // 3 :]} == {rows[index, stop, measure]}
    assert math.isclose(rows_of(tmp_path)[STEPS]["diverged/noise=0.0"], 0)
    assert "val/loss/noise=0.0/std" in rows_of(tmp_path)[STEPS]


class BatchLosses(Callback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        self.values.append(outputs["loss"].item())


def test_training_loss_is_that_of_the_steps_taken(tmp_path: Path) -> None:
    """Logged after steps 32, 35 and 40: replica 0 stops within the first window, at step 33 the other of its group."""
    module = together(StopAtLoss(1.0, every_n_steps=11), folder=tmp_path)
    stops = stops_of(module)
    assert stops[:2] == [33, 33]
    losses = []
    for index in (0, 1):
        each = BatchLosses()
        CASE.alone(REPLICAS[index], callbacks=[each], max_steps=33, max_epochs=None)
        losses.append(each.values)
    rows = rows_of(tmp_path)
    assert rows[32]["train/loss/noise=0.0/mean"] == pytest.approx(
        sum(sum(own[30:32]) / 2 for own in losses) / 2, rel=1e-9
    )
    assert rows[35]["train/loss/noise=0.0/mean"] == pytest.approx(sum(own[32] for own in losses) / 2, rel=1e-9)
    assert "train/loss/noise=0.0/mean" not in rows[40]
    assert "train/loss/noise=0.4/mean" in rows[40]


@pytest.mark.parametrize(
    ("rule", "at", "engine"),
    [("margin", 21, "kernel"), ("margin", 29, "general"), ("error", 56, "kernel")],
)
def test_resumed_run_equals_the_undisturbed_run(tmp_path: Path, rule: str, at: int, engine: str) -> None:
    """The stop is before or after replicas have stopped, or between two measurements without error."""
    if rule == "error":
        assert RULES[rule].stops(SCHEDULES["every-step"][1])[0] == at + 1

    def callbacks() -> list[Callback]:
        return [RULES[rule].rule(every_n_steps=1), DistanceFromInit(every_n_steps=4)]

    whole = tmp_path / "whole"
    keep = ModelCheckpoint(whole / "checkpoints", filename="{step}", every_n_train_steps=at, save_top_k=-1)
    module = together(*callbacks(), keep, engine=engine, folder=whole)
    again = shutil.copytree(whole, tmp_path / "again")
    resumed = together(*callbacks(), engine=engine, folder=again, checkpoint=whole / "checkpoints" / f"step={at}.ckpt")
    assert resumed.trainer.global_step == module.trainer.global_step > at
    assert stops_of(resumed) == stops_of(module)
    assert resumed.frozen.stopped_by == module.frozen.stopped_by
    assert_same(weights(resumed), weights(module))
    assert [row | {"stderr": 0} for row in parquet(again)] == [row | {"stderr": 0} for row in parquet(whole)]
    ours, theirs = rows_of(again), rows_of(whole)
    assert list(ours) == list(theirs)
    for step, row in ours.items():
        assert row == pytest.approx(theirs[step], rel=1e-12), step


def test_a_finished_run_takes_no_step_when_resumed(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "checkpoints", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    module = together(StopAtLoss(1.37, every_n_steps=3), keep)
    last = module.trainer.global_step
    assert last < STEPS
    path = tmp_path / "checkpoints" / f"step={last}.ckpt"
    resumed = together(StopAtLoss(1.37, every_n_steps=3), checkpoint=path)
    assert resumed.trainer.global_step == last
    assert_same(weights(resumed), weights(module))


@ENGINES
def test_with_a_replica_that_diverges(tmp_path: Path, engine: str) -> None:
    wild = [Replica(5, lr=1e200), Replica(5, lr=0.1), Replica(6, lr=0.1)]
    case = replace(REGRESSION, lr=0.1, momentum=0.9)
    module = together(
        StopAtLoss(0.75, every_n_steps=2), folder=tmp_path, engine=engine, case=case, replicas=wild, max_epochs=60
    )
    assert stops_of(module)[0] is None and None not in stops_of(module)[1:]
    assert 1 <= int(module.frozen.diverged_at[0]) <= 3
    assert module.frozen.diverged_at[1:].tolist() == [-1, -1]
    assert module.frozen.valid == [1, 2] and module.frozen.running == []
    assert module.trainer.global_step == max(stops_of(module)[1:])
    last = {row["replica"] for row in parquet(tmp_path) if row["step"] == module.trainer.global_step}
    assert last == {1, 2}


def test_the_first_of_two_rules_counts() -> None:
    due = SCHEDULES["every-third"][1]
    at_loss, at_margin = (RULES[rule].stops(due) for rule in ("loss", "margin"))
    assert at_loss[0] < at_margin[0] and at_margin[2] is None and at_loss[2] is not None
    module = together(StopAtMargin(0.25, 0.7, every_n_steps=3), StopAtLoss(1.37, every_n_steps=3))
    assert stops_of(module) == at_loss
    assert {*module.frozen.stopped_by.values()} == {"StopAtLoss"}


@ENGINES
def test_a_rule_may_hold_before_the_first_step(engine: str) -> None:
    module = together(StopAtLoss(100.0), engine=engine)
    assert module.trainer.global_step == 0
    assert stops_of(module) == [0] * len(REPLICAS)
    fresh, _ = CASE.together(REPLICAS)
    assert_same(weights(module), weights(fresh))


def test_no_rule_counts_before_min_steps() -> None:
    module = together(StopAtLoss(100.0, every_n_steps=4), min_steps=10)
    assert stops_of(module) == [12] * len(REPLICAS)
    module = together(StopAtLoss(100.0, every_n_steps=4), min_epochs=2)
    assert stops_of(module) == [12] * len(REPLICAS)
    module = together(StopAtLoss(100.0), min_epochs=2)
    assert stops_of(module) == [10] * len(REPLICAS)
    assert module.trainer.global_step == 10


def test_a_second_run_starts_over() -> None:
    module, data = CASE.together(REPLICAS)
    rule = StopAtLoss(1.37, every_n_steps=3)
    trainer_of(callbacks=[rule], max_epochs=EPOCHS).fit(module, datamodule=data)
    assert module.frozen.running == []
    trainer_of(max_steps=4, max_epochs=None).fit(module, datamodule=data)
    assert module.frozen.running == [0, 1, 2, 3]
    assert module.trainer.global_step == 4
