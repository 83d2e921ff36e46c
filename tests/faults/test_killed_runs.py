"""Training killed at random moments, and gone on with, ends bit for bit as if it had never been."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.killed_runs import Killer, Survived, assert_same_table, assert_same_training, kill_at_changes
from tests.stopped_runs import CONFIG
from tests.warm_commands import WarmCommands

EPOCHS = 12


def noise(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": f"lnsgd.label_noise.{name}", "init_args": options}


def optimizer(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": f"torch.optim.{name}", "init_args": options}


MOMENTUM = optimizer("SGD", lr=0.1, momentum=0.9)
STEPWISE = {
    "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 60}},
    "lr_scheduler_interval": "step",
}
SQUARED = {"class_path": "lnsgd.losses.SquaredLoss"}

# Of the module; the rest is that of `tests.stopped_runs`.
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
    # Two that diverge, two that are stopped at once, and two that go on.
    "kernel-frozen": [
        *("--replicas.seeds", "2", "--replicas.lr", "[0.1,1.0e-9,1.0e+30]", "--replicas.engine", "kernel"),
        *("--trainer.callbacks+", '{"class_path": "lnsgd.callbacks.StopAtLoss", "init_args": {"loss": 0.1}}'),
    ],
    "general": ["--replicas.seeds", "3", "--replicas.engine", "general"],
}

Written = Callable[..., Callable[[Path], Sequence[str]]]


@pytest.fixture
def written(tmp_path: Path) -> Written:
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


def test_killed_and_gone_on_with(commands: WarmCommands, written: Written, tmp_path: Path) -> None:
    survive(commands, written(MODELS["uniform-momentum"]), tmp_path, kills=4)


def test_killed_at_some_changes(commands: WarmCommands, written: Written, tmp_path: Path) -> None:
    assert kill_at_changes(commands, written(trainer={"max_epochs": 1}), assert_same_training, tmp_path, 1, 4) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("half", [1, 2])
@pytest.mark.parametrize("trainer", [{}, TRAINERS["validating"], {"check_val_every_n_epoch": 2}], ids=str)
def test_killed_at_each_change(
    trainer: dict[str, Any], half: int, commands: WarmCommands, written: Written, tmp_path: Path
) -> None:
    """Kills at odd and at even changes, that two processes can test it."""
    command = written(MODELS["uniform-momentum"], {"max_epochs": 3, **trainer})
    assert kill_at_changes(commands, command, assert_same_training, tmp_path, half, 2) >= 15


@pytest.mark.slow
def test_two_processes_killed_at_changes(commands: WarmCommands, written: Written, tmp_path: Path) -> None:
    command = written(MODELS["uniform-momentum"], {"max_epochs": 2, **TRAINERS["two-processes"]})
    assert kill_at_changes(commands, command, assert_same_training, tmp_path, 1, 3) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("replicas", REPLICATED)
def test_replicas_killed_at_changes(replicas: str, commands: WarmCommands, written: Written, tmp_path: Path) -> None:
    command = written(trainer={"max_epochs": 2}, options=REPLICATED[replicas])
    assert kill_at_changes(commands, command, assert_same_training, tmp_path, 1, 3) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_noise_and_optimizer(model: str, commands: WarmCommands, written: Written, tmp_path: Path) -> None:
    survive(commands, written(MODELS[model]), tmp_path, kills=6)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_way_to_train(trainer: str, commands: WarmCommands, written: Written, tmp_path: Path) -> None:
    survive(commands, written(MODELS["uniform-momentum"], TRAINERS[trainer]), tmp_path, kills=6)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", REPLICATED)
def test_replicas(replicas: str, commands: WarmCommands, written: Written, tmp_path: Path) -> None:
    survive(commands, written(options=REPLICATED[replicas]), tmp_path, kills=6)


@pytest.mark.slow
def test_a_resnet_with_augmentation(
    commands: WarmCommands, written: Written, full_cifar10: Path, tmp_path: Path
) -> None:
    net = {"net": {"class_path": "lnsgd.models.ResNet20", "init_args": {"width": 2}}}
    options = {"data_dir": str(full_cifar10), "subset": 100, "val_size": 20, "batch_size": 16, "augment": True}
    data = {"class_path": "lnsgd.data.CIFAR10", "init_args": options}
    command = written({**net, "optimizer": MOMENTUM, **STEPWISE}, {"max_epochs": 4}, data)
    survive(commands, command, tmp_path, kills=6)


@pytest.mark.slow
@pytest.mark.parametrize("big", [400])
def test_while_a_large_checkpoint_is_written(
    big: int, commands: WarmCommands, written: Written, tmp_path: Path
) -> None:
    """Writing takes most of the time."""
    net = {"net": {"class_path": "lnsgd.models.MLP", "init_args": {"widths": [784, big, big, 10]}}}
    survived = survive(commands, written({**MODELS["uniform-momentum"], **net}), tmp_path, kills=8)
    assert survived.during["checkpoint"] >= 1


def assert_same_figure(one: Path, other: Path) -> None:
    for path in other.rglob("claims.json"):
        assert_same_table(one / path.relative_to(other), path)
    for path in other.rglob("last.ckpt"):
        arm = path.parents[1].relative_to(other)
        assert_same_training(one / arm, other / arm)


@pytest.mark.slow
def test_reproduce(commands: WarmCommands, tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        return ["reproduce", "cornacchia-basis", "--seeds", "3", "--out", str(out)]

    Killer(commands, command, assert_same_figure, tmp_path, seed=0).survive(6)


@pytest.mark.slow
def test_reproduce_killed_at_changes(commands: WarmCommands, tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        return ["reproduce", "cornacchia-basis", "--seeds", "1", "--out", str(out)]

    assert kill_at_changes(commands, command, assert_same_figure, tmp_path, 1, 5) >= 10
