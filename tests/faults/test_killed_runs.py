"""Training that is killed at random and resumed ends bit for bit like undisturbed training."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.killed_runs import Killer, Survived, assert_same_training, kill_at_changes
from tests.small_config import MOMENTUM, instance, mlp
from tests.stopped_runs import CONFIG
from tests.warm_commands import WarmCommands

EPOCHS = 12


def noise(name: str, **options: Any) -> dict[str, Any]:
    return instance(f"lnsgd.label_noise.{name}", **options)


def optimizer(name: str, **options: Any) -> dict[str, Any]:
    return instance(f"torch.optim.{name}", **options)


STEPWISE = {
    "lr_scheduler": instance("torch.optim.lr_scheduler.CosineAnnealingLR", T_max=60),
    "lr_scheduler_interval": "step",
}
SQUARED = {"class_path": "lnsgd.losses.SquaredLoss"}

# Arguments of the module; the rest of the config is that of `tests.stopped_runs`.
MODELS: dict[str, dict[str, Any]] = {
    "uniform-sgd": {"label_noise": noise("UniformNoise", p=0.4), "optimizer": optimizer("SGD", lr=0.1)},
    "uniform-momentum": {"label_noise": noise("UniformNoise", p=0.4), "optimizer": MOMENTUM},
    "uniform-adam": {"label_noise": noise("UniformNoise", p=0.4), "optimizer": optimizer("Adam", lr=0.01)},
    "smoothing-momentum": {"label_noise": noise("LabelSmoothing", p=0.4), "optimizer": MOMENTUM, **STEPWISE},
    "smoothing-adam": {"label_noise": noise("LabelSmoothing", p=0.4), "optimizer": optimizer("Adam", lr=0.01)},
    "gaussian-sgd": {"label_noise": noise("GaussianNoise", std=0.4), "loss": SQUARED, **STEPWISE},
    "gaussian-adam": {
        "label_noise": noise("GaussianNoise", std=0.4),
        "loss": SQUARED,
        "optimizer": optimizer("AdamW", lr=0.01),
    },
    "dropout-batchnorm": {"net": {"class_path": "tests.faults.nets.Dropped"}, "optimizer": MOMENTUM},
}
TRAINERS: dict[str, dict[str, Any]] = {
    "accumulating": {"accumulate_grad_batches": 2},
    "validating": {"val_check_interval": 2},
    "two-processes": {"devices": 2, "strategy": "ddp_fork"},
}
REPLICATED: dict[str, list[str]] = {
    "kernel": ["--replicas.seeds", "3", "--replicas.noise", "[0,0.2]", "--replicas.engine", "kernel"],
    # Two replicas diverge, two are stopped at once, and two continue.
    "kernel-frozen": [
        *("--replicas.seeds", "2", "--replicas.lr", "[0.1,1.0e-9,1.0e+30]", "--replicas.engine", "kernel"),
        *("--trainer.callbacks+", '{"class_path": "lnsgd.callbacks.StopAtLoss", "init_args": {"loss": 0.1}}'),
    ],
    "general": ["--replicas.seeds", "3", "--replicas.engine", "general"],
}

Written = Callable[..., Callable[[Path], Sequence[str]]]


@pytest.fixture
def write_command(tmp_path: Path) -> Written:
    def write(
        model: dict[str, Any] | None = None,
        trainer: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        options: Sequence[str] = (),
    ) -> Callable[[Path], Sequence[str]]:
        config = deepcopy(yaml.safe_load(CONFIG))
        config["model"]["init_args"] |= model or {}
        config["trainer"] |= {"max_epochs": EPOCHS, **(trainer or {})}
        config["data"] = data or config["data"]
        path = tmp_path / "plain.yaml"
        path.write_text(yaml.safe_dump(config))
        return lambda out: ["fit", "--config", str(path), "--run_dir", str(out), "--ckpt_path", "auto", *options]

    return write


def survive(commands: WarmCommands, command: Callable[[Path], Sequence[str]], folder: Path, kills: int) -> Survived:
    return Killer(commands, command, assert_same_training, folder, seed=kills).survive(kills)


def test_randomly_killed_run_resumes_bit_for_bit(
    commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    survive(commands, write_command(MODELS["uniform-momentum"]), tmp_path, kills=4)


def test_run_killed_at_some_changes_resumes_bit_for_bit(
    commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    assert (
        kill_at_changes(commands, write_command(trainer={"max_epochs": 1}), assert_same_training, tmp_path, 1, 4) >= 4
    )


@pytest.mark.slow
@pytest.mark.parametrize("half", [1, 2])
@pytest.mark.parametrize("trainer", [{}, TRAINERS["validating"], {"check_val_every_n_epoch": 2}], ids=str)
def test_run_killed_at_each_change_resumes_bit_for_bit(
    trainer: dict[str, Any], half: int, commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    """Kills at odd and at even changes are separate cases, which can run in parallel."""
    command = write_command(MODELS["uniform-momentum"], {"max_epochs": 3, **trainer})
    assert kill_at_changes(commands, command, assert_same_training, tmp_path, half, 2) >= 15


@pytest.mark.slow
def test_two_processes_killed_at_changes_resume_bit_for_bit(
    commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    command = write_command(MODELS["uniform-momentum"], {"max_epochs": 2, **TRAINERS["two-processes"]})
    assert kill_at_changes(commands, command, assert_same_training, tmp_path, 1, 3) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("replicas", REPLICATED)
def test_replicas_killed_at_changes_resume_bit_for_bit(
    replicas: str, commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    command = write_command(trainer={"max_epochs": 2}, options=REPLICATED[replicas])
    assert kill_at_changes(commands, command, assert_same_training, tmp_path, 1, 3) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_noise_and_optimizer_resumes_bit_for_bit(
    model: str, commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    survive(commands, write_command(MODELS[model]), tmp_path, kills=6)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_kind_of_training_resumes_bit_for_bit(
    trainer: str, commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    survive(commands, write_command(MODELS["uniform-momentum"], TRAINERS[trainer]), tmp_path, kills=6)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", REPLICATED)
def test_randomly_killed_replicas_resume_bit_for_bit(
    replicas: str, commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    survive(commands, write_command(options=REPLICATED[replicas]), tmp_path, kills=6)


@pytest.mark.slow
def test_resnet_with_augmentation_resumes_bit_for_bit(
    commands: WarmCommands, write_command: Written, full_cifar10: Path, tmp_path: Path
) -> None:
    net = {"net": instance("lnsgd.models.ResNet20", width=2)}
    options = {"data_dir": str(full_cifar10), "subset": 100, "val_size": 20, "batch_size": 16, "augment": True}
    data = instance("lnsgd.data.CIFAR10", **options)
    command = write_command({**net, "optimizer": MOMENTUM, **STEPWISE}, {"max_epochs": 4}, data)
    survive(commands, command, tmp_path, kills=6)


@pytest.mark.slow
@pytest.mark.parametrize("big", [400])
def test_kill_during_writing_of_a_large_checkpoint(
    big: int, commands: WarmCommands, write_command: Written, tmp_path: Path
) -> None:
    """Writing the checkpoint takes most of the time."""
    net = {"net": mlp(784, big, big, 10)}
    survived = survive(commands, write_command({**MODELS["uniform-momentum"], **net}), tmp_path, kills=8)
    assert survived.during["checkpoint"] >= 1


def assert_same_figure(one: Path, other: Path) -> None:
    for path in other.rglob("claims.json"):
        claims = [json.loads(file.read_text())["claims"] for file in (one / path.relative_to(other), path)]
        assert claims[0] == claims[1]
    for path in other.rglob("last.ckpt"):
        arm = path.parents[1].relative_to(other)
        assert_same_training(one / arm, other / arm)


@pytest.mark.slow
def test_randomly_killed_figure_resumes_bit_for_bit(commands: WarmCommands, tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        return ["reproduce", "cornacchia-basis", "--seeds", "3", "--out", str(out)]

    Killer(commands, command, assert_same_figure, tmp_path, seed=0).survive(6)


@pytest.mark.slow
def test_figure_killed_at_changes_resumes_bit_for_bit(commands: WarmCommands, tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        return ["reproduce", "cornacchia-basis", "--seeds", "1", "--out", str(out)]

    assert kill_at_changes(commands, command, assert_same_figure, tmp_path, 1, 5) >= 10
