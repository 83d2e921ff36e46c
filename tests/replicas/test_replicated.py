"""A replicated run: each replica equals its run alone, and steps are counted one by one."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR, StepLR

from lnsgd.callbacks import DistanceFromInit
from lnsgd.data import MNIST
from lnsgd.label_noise import LabelSmoothing, NoNoise
from lnsgd.losses import CrossEntropy
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.replicas import Replica, ReplicaGrid, ReplicatedData, ReplicatedModule
from lnsgd.replicas.engines.general import GeneralEngine
from tests.replicas.replicated_runs import (
    BATCH,
    CLASSES,
    ENGINES,
    EPOCH_STEPS,
    INPUTS,
    MOVING,
    REGRESSION,
    SEEDS,
    Case,
    Fresh,
    assert_close,
    assert_same,
    measuring,
    parquet,
    trainer_of,
    weights,
)

pytestmark = pytest.mark.usefixtures("quick_replicas")


# --- a replica is what its run alone is ---

GRID = ReplicaGrid(seeds=[5], noise=[0.0, 0.5], lr=[0.02, 0.1]).replicas(0)

# A case and its replicas.
ALONE: dict[str, tuple[Case, list[Replica]]] = {
    "batch-one": (Case(options={"batch_size": 1}), SEEDS),
    "batch-one-replacement": (Case(options={"batch_size": 1, "replacement": True}, momentum=0.9), SEEDS),
    "batches": (Case(), SEEDS),
    "batches-replacement": (Case(options={"replacement": True}), SEEDS),
    "full-batch": (Case(options={"batch_size": None}, momentum=0.9), SEEDS),
    "batch-above-n": (Case(options={"batch_size": 50}), SEEDS),
    "halving-per-epoch": (MOVING, SEEDS),
    "halving-per-step": (Case(schedule=partial(StepLR, step_size=4, gamma=0.5), interval="step"), SEEDS),
    "milestones": (Case(schedule=partial(MultiStepLR, milestones=[1, 2], gamma=0.1)), SEEDS),
    "milestones-per-step": (Case(schedule=partial(MultiStepLR, milestones=[3, 3, 9]), interval="step"), SEEDS),
    "no-noise": (Case(noise=NoNoise()), SEEDS),
    "smoothing": (Case(noise=LabelSmoothing(0.3), loss=CrossEntropy()), SEEDS),
    "noises-and-rates": (MOVING, GRID),
    "own-data": (Case(Fresh, {"batch_size": BATCH}), SEEDS),
    "own-subset": (Case(options={"subset": 9, "batch_size": 2}), SEEDS),
    "subsets-of-own-data": (Case(Fresh, {"batch_size": 2}), [Replica(5, subset=9), Replica(6, subset=9)]),
    "regression": (replace(REGRESSION, momentum=0.9), SEEDS),
    "regression-full-batch": (replace(REGRESSION, options={"batch_size": None}), SEEDS),
    "regression-noises": (REGRESSION, [Replica(5, noise=0.0), Replica(5, noise=0.7)]),
    "noise-that-ends": (Case(noise_steps=7, momentum=0.9), GRID),
    "regression-noise-that-ends": (replace(REGRESSION, noise_steps=EPOCH_STEPS), SEEDS),
    "skip": (Case(net={"skip": True}, momentum=0.9), SEEDS),
    "frozen-skip": (Case(net={"skip": True, "train_layers": [0]}), SEEDS),
    "frozen-layer": (Case(net={"train_layers": [0]}, momentum=0.9), SEEDS),
}


@ENGINES
@pytest.mark.parametrize(("case", "replicas"), ALONE.values(), ids=ALONE)
def test_a_replica_equals_its_run_alone(case: Case, replicas: list[Replica], engine: str) -> None:
    module, data = case.together(replicas, engine)
    trainer = trainer_of()
    trainer.fit(module, datamodule=data)
    for index, replica in enumerate(replicas):
        assert_close(module.replica(index).net, case.alone(replica).net)
    assert trainer.global_step == 3 * data.steps_per_epoch
    assert trainer.current_epoch == 3


@ENGINES
def test_training_sets_of_different_size(engine: str) -> None:
    """A run alone of the smaller one has more epochs in the same steps."""
    case, steps = MOVING, 17
    replicas = [Replica(5, subset=23), Replica(5, subset=9), Replica(6, subset=4)]
    module, data = case.together(replicas, engine)
    trainer_of(max_steps=steps).fit(module, datamodule=data)
    for index, replica in enumerate(replicas):
        assert_close(module.replica(index).net, case.alone(replica, max_steps=steps).net)


@ENGINES
def test_full_batches_of_different_size(engine: str) -> None:
    case = Case(options={"batch_size": None})
    replicas = [Replica(5, subset=23), Replica(5, subset=9)]
    module, data = case.together(replicas, engine)
    trainer_of(max_steps=6).fit(module, datamodule=data)
    for index, replica in enumerate(replicas):
        assert_close(module.replica(index).net, case.alone(replica, max_steps=6).net)


def mnist(**options: Any) -> MNIST:
    return MNIST(source="sample", subset=30, val_size=40, **{"batch_size": 8, **options})


@pytest.mark.slow
def test_images_and_a_compiled_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GeneralEngine.__init__, "__defaults__", (True,))
    case = Case(mnist, widths=(784, 8, 7, 10), momentum=0.9)
    module, data = case.together(SEEDS, "auto")
    trainer_of(limit_val_batches=0).fit(module, datamodule=data)
    for index, replica in enumerate(SEEDS):
        assert_close(module.replica(index).net, case.alone(replica, limit_val_batches=0).net)


def test_a_replica_does_not_depend_on_the_others() -> None:
    case = MOVING
    many, data = case.together(GRID)
    trainer_of().fit(many, datamodule=data)
    for index, replica in enumerate(GRID):
        one, data = case.together([replica])
        trainer_of().fit(one, datamodule=data)
        assert_same(weights(one.replica(0)), weights(many.replica(index)))


def test_initial_weights_equal_those_of_the_runs_alone() -> None:
    module, _ = Case().together(SEEDS)
    for index, replica in enumerate(SEEDS):
        assert_same(weights(module.replica(index)), weights(Case().template(replica)))


# --- steps ---


class Positions(Callback):
    """The step after every call, and the validations."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.validated: list[int] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.steps.append(trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.validated.append(trainer.global_step)


@ENGINES
@pytest.mark.parametrize("steps_per_call", [1, 7])
def test_steps_per_call_change_no_bit(steps_per_call: int, engine: str) -> None:
    runs = []
    for number in (None, steps_per_call):
        positions = Positions()
        module, data = MOVING.together(SEEDS, engine, number)
        trainer_of(max_steps=40, callbacks=[positions]).fit(module, datamodule=data)
        runs.append(weights(module))
    assert_same(*runs)
    assert max(b - a for a, b in zip([0, *positions.steps], positions.steps)) == steps_per_call


# Limits, the steps taken in all, the steps that were validated at.
LIMITS = {
    "epochs": ({"max_epochs": 2}, 10, [5, 10]),
    "steps": ({"max_steps": 12}, 12, [12]),
    "epochs-before-steps": ({"max_epochs": 2, "max_steps": 100}, 10, [5, 10]),
    "steps-before-epochs": ({"max_epochs": 4, "max_steps": 12}, 12, [5, 10, 12]),
    "every-second-epoch": ({"max_epochs": 4, "check_val_every_n_epoch": 2}, 20, [10, 20]),
}


@pytest.mark.parametrize(("limits", "steps", "validated"), LIMITS.values(), ids=LIMITS)
def test_limits_count_sgd_steps(limits: dict[str, int], steps: int, validated: list[int]) -> None:
    positions = Positions()
    module, data = Case().together(SEEDS)
    trainer = trainer_of(callbacks=[positions], **limits)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == positions.steps[-1] == steps
    assert positions.validated == validated


class CalledAt(DistanceFromInit):
    """At which steps it measured, in the order of the calls."""

    def __init__(self, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.measured: list[int] = []

    def measure(self, subject: Any, source: Any, context: Any) -> Any:
        self.measured.append(context.trainer.global_step)
        return super().measure(subject, source, context)


CADENCES = {
    "every-seven": ({"every_n_steps": 7}, [0, 7, 14, 21, 28, 30]),
    "log-spaced": ({"log_spaced": 3}, [0, 1, 2, 5, 10, 22, 30]),
    "at-steps": ({"at_steps": [3, 4, 29]}, [0, 3, 4, 29, 30]),
    "every-second-epoch": ({"every_n_epochs": 2}, [0, 10, 20, 30]),
}


@pytest.mark.parametrize("steps_per_call", [None, 4])
@pytest.mark.parametrize(("schedule", "steps"), CADENCES.values(), ids=CADENCES)
def test_callbacks_measure_at_their_steps(
    tmp_path: Path, schedule: dict[str, Any], steps: list[int], steps_per_call: int | None
) -> None:
    callback = CalledAt(**schedule)
    module, data = Case().together(SEEDS, steps_per_call=steps_per_call)
    trainer_of(tmp_path, max_epochs=6, callbacks=[callback]).fit(module, datamodule=data)
    assert callback.measured == [step for step in steps for _ in SEEDS]
    assert sorted({row["step"] for row in parquet(tmp_path)}) == steps


# --- precision ---


@ENGINES
def test_in_double_precision_by_the_trainer(tmp_path: Path, engine: str) -> None:
    """The module is built in float32, and converted when training starts."""
    torch.set_default_dtype(torch.float32)
    case = MOVING
    module, data = case.together(SEEDS, engine)
    trainer_of(tmp_path, precision="64-true", callbacks=measuring(every_n_steps=4)).fit(module, datamodule=data)
    for index, replica in enumerate(SEEDS):
        own = module.replica(index)
        assert next(own.parameters()).dtype == torch.float64
        assert_close(own.net, case.alone(replica, precision="64-true").net)


# --- refused ---


def adam(parameters: Any) -> Adam:
    return Adam(parameters, lr=0.1)


def nesterov(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)


NET = partial(MLP, [INPUTS, 6, CLASSES])
REFUSED: dict[str, tuple[Any, str]] = {
    "optimizer": (lambda: Classifier(NET(), optimizer=adam), "torch.optim.SGD, not by Adam"),
    "nesterov": (lambda: Classifier(NET(), optimizer=nesterov), "nesterov = True is not offered"),
    "schedule": (lambda: Classifier(NET(), lr_scheduler=partial(ExponentialLR, gamma=0.9)), "not ExponentialLR"),
    "module": (pl.LightningModule, "lnsgd.modules .*, not LightningModule"),
    "network": (lambda: Classifier(nn.Sequential(NET())), "Sequential has no reset_parameters"),
}


@pytest.mark.parametrize(("cell", "says"), REFUSED.values(), ids=REFUSED)
def test_a_template_that_cannot_be_replicated(cell: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ReplicatedModule(cell(), SEEDS)


def test_no_replicas() -> None:
    with pytest.raises(ValueError, match="the list is empty; give at least one"):
        ReplicatedModule(Case().template(), [])


def test_noise_levels_without_a_noise() -> None:
    with pytest.raises(ValueError, match="NoNoise has no level"):
        ReplicatedModule(Case(noise=NoNoise()).template(), [Replica(0, noise=0.1)])


def test_half_precision() -> None:
    module, data = Case().together(SEEDS)
    with pytest.raises(ValueError, match="precision = bf16-true: replicas run in 32-true or 64-true"):
        trainer_of(precision="bf16-true").fit(module, datamodule=data)


def test_data_of_another_kind() -> None:
    with pytest.raises(ValueError, match=r"a DataModule of lnsgd\.data .*, not LightningDataModule"):
        ReplicatedData(pl.LightningDataModule(), SEEDS)
    module, data = Case().together(SEEDS)
    with pytest.raises(ValueError, match=r"trained on lnsgd\.replicas\.ReplicatedData"):
        trainer_of().fit(module, datamodule=data.data)


def test_more_than_one_process() -> None:
    module, data = Case().together(SEEDS)
    with (
        patch("pytorch_lightning.Trainer.world_size", PropertyMock(return_value=2)),
        pytest.raises(ValueError, match=r"replicas run in one process; use trainer\.devices = 1"),
    ):
        trainer_of().fit(module, datamodule=data)


def test_outputs_that_do_not_fit_the_labels() -> None:
    module, data = Case(widths=(INPUTS, 6, 4)).together(SEEDS)
    with pytest.raises(ValueError, match="4 outputs for 3 classes"):
        trainer_of().fit(module, datamodule=data)


def test_an_engine_that_cannot_run_the_network() -> None:
    module, data = Case(widths=(INPUTS, 6, 5, CLASSES)).together(SEEDS, "kernel")
    with pytest.raises(ValueError, match="engine = kernel cannot run this: it has 2 hidden layers"):
        trainer_of().fit(module, datamodule=data)


def test_the_engine_is_reported(told: list[str]) -> None:
    module, data = Case().together(SEEDS, "auto")
    trainer_of(max_steps=1).fit(module, datamodule=data)
    assert "2 replicas, engine kernel (one hidden layer on the CPU)" in told
