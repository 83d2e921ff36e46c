"""Small sweeps for the tests: what they train, what befalls them, and when two tables are the same."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from pytorch_lightning import Callback, Trainer

from lnsgd.callbacks import StopOnSignal
from lnsgd.sweep import load
from lnsgd.sweep.folder import SweepFolder

CONFIG = """\
model:
  class_path: lnsgd.modules.Classifier
  init_args:
    net:
      class_path: lnsgd.models.MLP
      init_args:
        widths: [784, 6, 10]
    loss: lnsgd.losses.LogisticLoss
    label_noise:
      class_path: lnsgd.label_noise.UniformNoise
      init_args:
        p: 0.2
    optimizer:
      class_path: torch.optim.SGD
      init_args:
        lr: 0.1
data:
  class_path: lnsgd.data.MNIST
  init_args:
    source: sample
    subset: 100
    batch_size: 20
trainer:
  accelerator: cpu
  max_epochs: -1
  max_steps: 20
  limit_val_batches: 0
  callbacks:
    - class_path: lnsgd.callbacks.DistanceFromInit
      init_args:
        every_n_steps: 10
    - class_path: lnsgd.callbacks.Performance
      init_args:
        splits: [train]
        every_n_steps: 10
"""

# A run of its own for each cell: Lightning's callback knows nothing of replicas.
ORDINARY = {"class_path": "tests.sweep.small_sweeps.Befall", "init_args": {"how": "nothing"}}

# Seconds after which something will not happen any more.
DEADLINE = 120

# What two runs of the same cells may differ in.
CIRCUMSTANCES = ["seconds", "attempts"]


class Befall(Callback):
    """Something that befalls a run after a step: an exception, a signal, or nothing; only once if there is a mark."""

    def __init__(self, how: str, step: int = 10, mark: str | None = None, seed: int | None = None) -> None:
        self.how, self.step, self.mark, self.seed = how, step, mark, seed

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step != self.step or self.seed not in (None, pl_module.seed):
            return
        if self.mark is not None:
            if Path(self.mark).exists():
                return
            Path(self.mark).touch()
        if self.how == "exception":
            raise RuntimeError("no more of this")
        if self.how != "nothing":
            os.kill(os.getpid(), signal.Signals[self.how])


class BefallReplicas(Befall):
    """Nothing that befalls a replicated run, which it knows of."""

    def next_stop(self, step: int) -> int | None:
        return self.step if step < self.step else None


class Meet(Callback):
    """Holds a run after a step until so many runs have come to it, each of which leaves a file in a folder.

    A request to stop ends the wait, unless the run is stubborn.
    """

    def __init__(self, folder: str, number: int, step: int = 10, stubborn: bool = False) -> None:
        self.folder, self.number, self.step, self.stubborn = Path(folder), number, step, stubborn

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step != self.step:
            return
        self.folder.mkdir(exist_ok=True)
        (self.folder / str(pl_module.seed)).touch()
        (signals,) = (callback._signals for callback in trainer.callbacks if isinstance(callback, StopOnSignal))
        deadline = time.monotonic() + DEADLINE
        while len(list(self.folder.iterdir())) < self.number and not (signals.received and not self.stubborn):
            assert time.monotonic() < deadline, "the others have not come"
            time.sleep(0.02)


def write_sweep(folder: Path, name: str = "small", callbacks: Any = (), **content: Any) -> Path:
    """``base.yaml`` with further callbacks, and a sweep of it."""
    config = yaml.safe_load(CONFIG)
    config["trainer"]["callbacks"] += callbacks
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(config))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", **content}, sort_keys=False))
    return path


def stands_at(folder: SweepFolder, job: str, step: int) -> None:
    """Lets a job's run have a checkpoint of a step."""
    path = folder.run(job).last_checkpoint
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"global_step": step}, path)


def assert_same_table(folder: Path, other: Path) -> None:
    """The same cells with the same numbers, bit for bit, whatever it took."""
    one, two = (load(path).drop(columns=CIRCUMSTANCES) for path in (folder, other))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
