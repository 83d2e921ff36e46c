"""Small sweeps for the tests: what they train, faults in their runs, and comparisons of their results."""

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
from tests.small_config import instance, mlp, small_config

# 20 steps of an MLP 784-6-10, with SGD without momentum.
CONFIG = small_config(
    model={
        "net": mlp(784, 6, 10),
        "loss": "lnsgd.losses.LogisticLoss",
        "optimizer": instance("torch.optim.SGD", lr=0.1),
    },
    trainer={"max_epochs": -1, "max_steps": 20, "limit_val_batches": 0},
    callbacks=[
        instance("lnsgd.callbacks.DistanceFromInit", every_n_steps=10),
        instance("lnsgd.callbacks.Performance", splits=["train"], every_n_steps=10),
    ],
)

# With this callback, which does not support replicas, each cell is an ordinary run.
ORDINARY = instance("tests.sweep.small_sweeps.Fault", kind="none")

# Seconds that a test waits at most.
DEADLINE = 120

# Columns in which two runs of the same cells may differ.
INCIDENTAL_COLUMNS = ["seconds", "attempts"]


class Fault(Callback):
    """A fault of a run after a step: an exception, a signal or none; only once if a path to a mark is given."""

    def __init__(self, kind: str, step: int = 10, mark: str | None = None, seed: int | None = None) -> None:
        self.kind, self.step, self.mark, self.seed = kind, step, mark, seed

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step != self.step or self.seed not in (None, pl_module.seed):
            return
        if self.mark is not None:
            if Path(self.mark).exists():
                return
            Path(self.mark).touch()
        if self.kind == "exception":
            raise RuntimeError("injected fault")
        if self.kind != "none":
            os.kill(os.getpid(), signal.Signals[self.kind])


class ReplicaFault(Fault):
    """A fault that supports replicated runs."""

    def next_stop(self, step: int) -> int | None:
        return self.step if step < self.step else None


class Rendezvous(Callback):
    """Holds a run after a step until a number of runs have reached it; each leaves a file in a folder.

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
            assert time.monotonic() < deadline, "the other runs have not arrived"
            time.sleep(0.02)


def write_sweep(folder: Path, name: str = "small", callbacks: Any = (), **content: Any) -> Path:
    """Write ``base.yaml`` with further callbacks, and a sweep of it; return the path of the sweep."""
    config = {**CONFIG, "trainer": {**CONFIG["trainer"], "callbacks": [*CONFIG["trainer"]["callbacks"], *callbacks]}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(config))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", **content}, sort_keys=False))
    return path


def save_checkpoint_at(folder: SweepFolder, job: str, step: int) -> None:
    """Save a checkpoint at a step into the run folder of a job."""
    path = folder.run(job).last_checkpoint
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"global_step": step}, path)


def assert_same_table(folder: Path, other: Path) -> None:
    """Check that two sweeps have the same cells with the same numbers, bit for bit."""
    one, two = (load(path).drop(columns=INCIDENTAL_COLUMNS) for path in (folder, other))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def read_files(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
