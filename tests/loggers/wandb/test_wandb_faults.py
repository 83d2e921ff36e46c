"""Training continues with complete local files if W&B is unreachable, fails or is killed."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from pytorch_lightning import Callback, Trainer

from lnsgd.cli import main
from lnsgd.loggers.wandb import run as wandb_run
from lnsgd.training.cli import train
from tests.loggers.wandb.offline_runs import QUICK, assert_same_numbers, history, runs_below
from tests.loggers.wandb.server import LOGGER, WandbServer
from tests.stopped_runs import CONFIG, EPOCH_STEPS, EPOCHS, STEPS


class CallAfterStep(Callback):
    """Calls a function after a step."""

    def __init__(self, step: int, change: Callable[[], object]) -> None:
        self.step, self.change = step, change

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            self.change()


def kill_wandb() -> None:
    """Kill the process of W&B, which receives what this process logs."""
    of_wandb = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and b"wandb-core" in (entry / "cmdline").read_bytes() and _parent(entry) == os.getpid()
    ]
    assert of_wandb
    for process in of_wandb:
        os.kill(process, signal.SIGKILL)


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def with_key(patch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    patch.setenv("WANDB_API_KEY", "f" * 40)


def test_offline_run_does_not_contact_the_server(alone: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    """The key is invalid and the server is dead, so only a run that never asks the server prints no warning."""
    with_key(monkeypatch)
    main(["fit", *QUICK, "--run_dir", "run", "--trainer.logger.offline", "true"])
    assert not [line for line in told if "unreachable" in line]
    assert [line for line in told if "wandb sync" in line]
    wandb.teardown()
    assert len(runs_below(alone / "run")) == 1


def test_dead_server_does_not_stop_training(alone: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    with_key(monkeypatch)
    monkeypatch.setenv("WANDB_X_DISABLE_VIEWER", "true")  # W&B would first ask for the user, twice for 5 s
    settings = wandb.Settings
    monkeypatch.setattr(wandb, "Settings", lambda **given: settings(**{**given, "init_timeout": 1}))
    main(["fit", *QUICK, "--run_dir", "run"])
    assert len([line for line in told if "kept offline" in line and "unreachable" in line]) == 1
    assert len([line for line in told if "wandb sync" in line]) == 1
    assert (alone / "run" / "finished.json").exists()
    wandb.teardown()
    assert_same_numbers(alone / "run")


@pytest.mark.parametrize(
    "change",
    ["revoked", pytest.param("dead", marks=pytest.mark.slow)],  # W&B tries for 20 s to reach a dead server
)
def test_server_that_fails_does_not_stop_training(
    server: WandbServer, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(wandb_run, "_FINISH_TIMEOUT", 1)
    (tmp_path / "plain.yaml").write_text(CONFIG)
    options = ["--run_dir", "run", *LOGGER, "--trainer.logger.log_model", "all"]
    train(
        ["fit", "--config", "plain.yaml", *options], callbacks=[CallAfterStep(3, lambda: setattr(server, change, True))]
    )
    assert (tmp_path / "run" / "finished.json").exists()
    assert len([line for line in told if "accepts no further tables and checkpoints" in line]) == 1
    (hint,) = [line for line in told if "wandb sync" in line]
    assert list((tmp_path / hint.rpartition("wandb sync ")[2]).glob("run-*.wandb"))


@pytest.mark.parametrize("online", [True, False])
def test_killed_wandb_process_does_not_stop_training(
    server: WandbServer, tmp_path: Path, told: list[str], online: bool
) -> None:
    (tmp_path / "plain.yaml").write_text(CONFIG)
    main(["fit", "--config", "plain.yaml", "--run_dir", "undisturbed"])
    options = ["--run_dir", "run", *LOGGER, "--trainer.logger.offline", str(not online).lower()]
    train(["fit", "--config", "plain.yaml", *options], callbacks=[CallAfterStep(3, kill_wandb)])
    assert (tmp_path / "run" / "finished.json").exists()
    assert len([line for line in told if "process of W&B has died" in line]) == 1
    assert not [line for line in told if "accepts no further" in line]
    assert len([line for line in told if "wandb sync" in line]) == 1
    assert (tmp_path / "run" / "metrics.csv").read_text() == (tmp_path / "undisturbed" / "metrics.csv").read_text()


def test_revoked_key_makes_an_offline_run(server: WandbServer, tmp_path: Path, told: list[str]) -> None:
    server.revoked = True
    (tmp_path / "plain.yaml").write_text(CONFIG)
    main(["fit", "--config", "plain.yaml", "--run_dir", "run", *LOGGER])
    assert len([line for line in told if "kept offline" in line and "unreachable" in line]) == 1
    assert (tmp_path / "run" / "finished.json").exists()
    assert not server.runs


@pytest.mark.parametrize(
    "change",
    ["revoked", pytest.param("dead", marks=pytest.mark.slow)],  # W&B tries for 10 s to reach a dead server
)
def test_resumed_run_without_server_is_offline_with_its_id(
    server: WandbServer, tmp_path: Path, told: list[str], change: str
) -> None:
    """The process of W&B would treat the second start, offline, as another run with the same id."""
    (tmp_path / "plain.yaml").write_text(CONFIG)
    options = ["fit", "--config", "plain.yaml", "--run_dir", "run", *LOGGER]
    main(options)
    setattr(server, change, True)
    main([*options, "--ckpt_path", "last", "--trainer.max_epochs", str(EPOCHS + 1)])
    assert len([line for line in told if "kept offline" in line and "unreachable" in line]) == 1
    assert len([line for line in told if "wandb sync" in line]) == 1
    wandb.teardown()
    (records,) = runs_below(tmp_path / "run")
    assert {record.run.run_id for record in records if record.HasField("run")} == set(server.runs)
    assert (min(history(records)), max(history(records))) == (STEPS + 1, STEPS + EPOCH_STEPS)
