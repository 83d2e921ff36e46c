"""Replicated runs for the tests: modules, data, and how results are read and compared."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from lnsgd import rng
from lnsgd.callbacks import ActiveNeurons, DistanceFromInit, Performance
from lnsgd.data import InMemory, TensorData
from lnsgd.data.tensors import LabelledTensors, draw_subset
from lnsgd.label_noise import GaussianNoise, LabelNoise, UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.losses import LogisticLoss, Loss
from lnsgd.models import MLP
from lnsgd.modules import Classifier, Regressor
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.replicas import Replica, ReplicaGrid, ReplicatedData, ReplicatedModule
from tests.tolerances import EXACT

N, INPUTS, CLASSES = 23, 5, 3
BATCH = 5  # five batches an epoch, the last of three
EPOCH_STEPS = 5

ENGINES = pytest.mark.parametrize("engine", ["kernel", "general"])
LOGISTIC, UNIFORM = LogisticLoss(), UniformNoise(0.4)


def examples(n: int, seed: int, real: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, INPUTS, generator=generator)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    return inputs, torch.randn(n, CLASSES, generator=generator) if real else labels


def in_memory(real: bool = False, **options: Any) -> InMemory:
    settings = {"batch_size": BATCH, "eval_batch_size": 7, "seed": 0, **options}
    return InMemory(examples(N, 1, real), examples(11, 2, real), examples(12, 3, real), **settings)


class Fresh(TensorData):
    """Another data set for each seed."""

    num_classes = CLASSES

    def make_splits(self) -> dict[Any, LabelledTensors]:
        splits = {
            name: LabelledTensors(*examples(n, 10 * self.seed + k))
            for k, (name, n) in enumerate({"train": N, "val": 11, "test": 12}.items())
        }
        if self.subset is not None:
            splits["train"] = draw_subset(splits["train"], self.subset, self.seed)
        return splits


@dataclass(frozen=True)
class Case:
    """Settings of a template; the settings in which replicas differ are in the replicas."""

    data: Any = in_memory
    options: dict[str, Any] = field(default_factory=dict)
    module: type[SupervisedModule] = Classifier
    loss: Loss | None = LOGISTIC
    noise: LabelNoise = UNIFORM
    momentum: float = 0.0
    schedule: Any = None
    interval: str = "epoch"
    net: dict[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = (INPUTS, 6, CLASSES)
    lr: float = 0.05
    noise_steps: int | None = None

    def template(self, replica: Replica | None = None) -> SupervisedModule:
        """Return the template, or the module of a replica's run alone."""
        chosen = replica or Replica(99)
        with rng.forked(chosen.seed, "init"):
            net = MLP(self.widths, **self.net)
        noise = self.noise if chosen.noise is None else self.noise.at_level(chosen.noise)
        sgd = partial(SGD, lr=self.lr if chosen.lr is None else chosen.lr, momentum=self.momentum)
        return self.module(
            net,
            self.loss,
            noise,
            sgd,
            lr_scheduler=self.schedule,
            lr_scheduler_interval=self.interval,
            seed=chosen.seed,
            noise_steps=self.noise_steps,
        )

    def datamodule(self) -> TensorData:
        return self.data(**self.options)

    def alone(self, replica: Replica, **limits: Any) -> SupervisedModule:
        """Train a replica alone, under Lightning."""
        module = self.template(replica)
        trainer_of(**limits).fit(module, datamodule=self.datamodule().variant(replica.seed, replica.subset))
        return module

    def together(
        self, replicas: Sequence[Replica], engine: Any = "kernel", steps_per_call: int | None = None
    ) -> tuple[ReplicatedModule, ReplicatedData]:
        module = ReplicatedModule(self.template(), replicas, engine, steps_per_call)
        return module, ReplicatedData(self.datamodule(), replicas)


def trainer_of(folder: Path | None = None, resume: bool = False, **options: Any) -> pl.Trainer:
    callbacks = options.get("callbacks", [])
    settings = {
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "max_epochs": 3 if "max_steps" not in options else None,
        **options,
    }
    return pl.Trainer(
        accelerator="cpu",
        logger=CSVLogger(str(folder), resume) if folder else False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


SEEDS = ReplicaGrid(seeds=2).replicas(5)


def weights(module: pl.LightningModule) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def assert_close(module: nn.Module, expected: nn.Module) -> None:
    for ours, theirs in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def rows_of(folder: Path) -> dict[int, dict[str, float]]:
    """Return the rows of metrics.csv by step, without empty fields."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return {int(row.pop("step")): row for row in rows}


def parquet(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "measures.parquet").to_pylist()


def measuring(**schedule: Any) -> list[Callback]:
    return [DistanceFromInit(**schedule), Performance(examples=9, **schedule), ActiveNeurons(examples=9, **schedule)]


def evaluated(module: SupervisedModule, data: TensorData, split: str) -> tuple[float, float]:
    """Return loss and accuracy on a whole split."""
    inputs, labels = data.splits[split].inputs, data.splits[split].labels
    with torch.no_grad():
        outputs = module(inputs)
    return module.loss(outputs, labels).mean().item(), (outputs.argmax(1) == labels).double().mean().item()


# Cells that several files train.
HALVING = partial(StepLR, step_size=1, gamma=0.5)
MOMENTUM = Case(momentum=0.9)
MOVING = replace(MOMENTUM, schedule=HALVING)
REGRESSION = Case(partial(in_memory, real=True), module=Regressor, loss=None, noise=GaussianNoise(0.3))
