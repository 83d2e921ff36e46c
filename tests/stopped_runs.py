"""A small run for the tests of stopping and going on, what sends it signals, and when two runs are the same."""

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
from lnsgd.run_folder import RunFolder

EPOCH_STEPS, EPOCHS = 5, 3
STEPS = EPOCH_STEPS * EPOCHS

# Five steps an epoch, three epochs. Momentum, so that the optimizer has a state that a resumed run needs.
CONFIG = """\
model:
  class_path: lnsgd.modules.Classifier
  init_args:
    net:
      class_path: lnsgd.models.MLP
      init_args:
        widths: [784, 12, 10]
    label_noise:
      class_path: lnsgd.label_noise.UniformNoise
      init_args:
        p: 0.2
    optimizer:
      class_path: torch.optim.SGD
      init_args:
        lr: 0.1
        momentum: 0.9
data:
  class_path: lnsgd.data.MNIST
  init_args:
    source: sample
    subset: 100
    val_size: 50
    batch_size: 20
trainer:
  accelerator: cpu
  max_epochs: 3
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lnsgd.callbacks.DistanceFromInit
      init_args:
        every_n_steps: 2
"""


class SignalAt(Callback):
    """Sends this process a signal in a hook, after a step, on one rank."""

    def __init__(self, step: int, hook: str = "on_train_batch_end", name: str = "SIGUSR1", rank: int = 0) -> None:
        self.step, self.name, self.rank = step, name, rank
        setattr(self, hook, self._send)

    def _send(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.Signals[self.name])


def write_configs(folder: Path, **signal_at: Any) -> None:
    """``plain.yaml``, and ``stopped.yaml`` with a signal."""
    config = yaml.safe_load(CONFIG)
    (folder / "plain.yaml").write_text(CONFIG)
    config["trainer"]["callbacks"].append({"class_path": "tests.stopped_runs.SignalAt", "init_args": signal_at})
    (folder / "stopped.yaml").write_text(yaml.safe_dump(config))


def fit_until_stopped(*args: str) -> None:
    """A run that a signal stops, so that it can go on."""
    with pytest.raises(SystemExit) as ended:
        main(["fit", *args])
    assert ended.value.code == 75


def assert_same_run(run: RunFolder, other: RunFolder) -> None:
    """Weights, momentum and everything logged, bit for bit."""
    one, two = (torch.load(folder.last_checkpoint, weights_only=False) for folder in (run, other))
    assert one["global_step"] == two["global_step"]
    torch.testing.assert_close(one["state_dict"], two["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(_tensors(one), _tensors(two), rtol=0, atol=0)
    pd.testing.assert_frame_equal(pd.read_csv(run.metrics), pd.read_csv(other.metrics), check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(run.measures), pd.read_parquet(other.measures), check_exact=True)


def _tensors(checkpoint: dict[str, Any]) -> list[torch.Tensor]:
    """Momentum of an ordinary run, velocity of a replicated one."""
    states = [state for optimizer in checkpoint["optimizer_states"] for state in optimizer["state"].values()]
    velocity = checkpoint.get("replicas", {}).get("velocity", {})
    found = [*(state["momentum_buffer"] for state in states), *velocity.values()]
    assert found
    return found
