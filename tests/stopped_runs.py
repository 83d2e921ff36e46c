"""A small run for tests of stopping and resuming, signals to it, and a comparison of two runs."""

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from pytorch_lightning import Callback, Trainer

from lnsgd.cli import main
from lnsgd.runs.folder import RunFolder
from tests.small_config import instance, small_config

EPOCH_STEPS, EPOCHS = 5, 3
STEPS = EPOCH_STEPS * EPOCHS

CONFIG = yaml.safe_dump(
    small_config(
        data={"val_size": 50},
        trainer={"max_epochs": EPOCHS, "log_every_n_steps": 1},
        callbacks=[instance("lnsgd.callbacks.DistanceFromInit", every_n_steps=2)],
    )
)


class SignalAt(Callback):
    """A callback that sends this process a signal in a hook, after a step, on one rank."""

    def __init__(self, step: int, hook: str = "on_train_batch_end", name: str = "SIGUSR1", rank: int = 0) -> None:
        self.step, self.name, self.rank = step, name, rank
        setattr(self, hook, self._send)

    def _send(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.Signals[self.name])


def write_configs(folder: Path, **signal_at: Any) -> None:
    """Write ``plain.yaml``, and ``stopped.yaml`` with a signal."""
    config = yaml.safe_load(CONFIG)
    (folder / "plain.yaml").write_text(CONFIG)
    config["trainer"]["callbacks"].append(instance("tests.stopped_runs.SignalAt", **signal_at))
    (folder / "stopped.yaml").write_text(yaml.safe_dump(config))


def fit_until_stopped(*args: str) -> None:
    """Train until a signal stops the run, so that it can be resumed."""
    with pytest.raises(SystemExit) as ended:
        main(["fit", *args])
    assert ended.value.code == 75


def assert_same_run(run: RunFolder, other: RunFolder) -> None:
    """Check that weights, momentum and everything logged are equal, bit for bit."""
    one, two = (torch.load(folder.last_checkpoint, weights_only=False) for folder in (run, other))
    assert one["global_step"] == two["global_step"]
    torch.testing.assert_close(one["state_dict"], two["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(_tensors(one), _tensors(two), rtol=0, atol=0)
    pd.testing.assert_frame_equal(pd.read_csv(run.metrics), pd.read_csv(other.metrics), check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(run.measures), pd.read_parquet(other.measures), check_exact=True)


def _tensors(checkpoint: dict[str, Any]) -> list[torch.Tensor]:
    """Return momentum of an ordinary run, or velocity of a replicated one."""
    states = [state for optimizer in checkpoint["optimizer_states"] for state in optimizer["state"].values()]
    velocity = checkpoint.get("replicas", {}).get("velocity", {})
    found = [*(state["momentum_buffer"] for state in states), *velocity.values()]
    assert found
    return found
