"""Small runs with several checkpoints, for analysis."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lnsgd.data import InMemory
from tests.small_config import Config, fit, instance, mlp, small_config, uniform_noise

_MEASURES = [
    instance("lnsgd.callbacks.ActiveNeurons"),
    instance("lnsgd.callbacks.ClassAssociation", histograms=0),
    instance("lnsgd.callbacks.DistanceFromInit"),
    instance("lnsgd.callbacks.Performance"),
    instance("lnsgd.callbacks.WeightNorms"),
    instance("lnsgd.callbacks.HessianTrace", max_overhead=None),
    instance("lnsgd.callbacks.TopEigenvalues", max_overhead=None, count=2),
    instance("lnsgd.callbacks.ImplicitRegularizer", max_overhead=None),
]

_KEEP_ALL = instance(
    "pytorch_lightning.callbacks.ModelCheckpoint",
    filename="{epoch}-{step}",
    save_top_k=-1,
    save_last=True,
    enable_version_counter=False,
)


def analyzed_config(width: int = 6, p: float = 0.1, keep_all: bool = False, **trainer: Any) -> Config:
    """Return the config of a run of 30 steps on 120 images, with measures that an analysis takes too.

    Args:
        width: Width of the network.
        p: Level of the label noise.
        keep_all: Keep the checkpoint of every epoch.
        trainer: Arguments of the Trainer to add or replace.
    """
    return small_config(
        model={
            "net": mlp(784, width, 10),
            "loss": "lnsgd.losses.LogisticLoss",
            "label_noise": uniform_noise(p),
            "optimizer": instance("torch.optim.SGD", lr=0.1),
        },
        data={"subset": 120, "batch_size": 12},
        trainer={"logger": False, **trainer},
        callbacks=[*_MEASURES, *([_KEEP_ALL] if keep_all else [])],
        seed_everything=3,
    )


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary run with three checkpoints and the initial weights."""
    return fit(analyzed_config(keep_all=True), tmp_path_factory.mktemp("analyzed") / "run").path


@pytest.fixture(scope="session")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three replicas."""
    folder = tmp_path_factory.mktemp("analyzed") / "replicated"
    return fit(analyzed_config(max_epochs=1), folder, "--replicas.seeds", "3").path


def weights(seed: int, width: int = 5) -> dict[str, torch.Tensor]:
    """Draw the weights of an MLP from 3 inputs to 2 outputs."""
    drawn = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (width, 3), "0.bias": (width,), "2.weight": (2, width), "2.bias": (2,)}
    return {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}


def small_net(width: int = 5) -> nn.Sequential:
    """Make the network that `weights` are for."""
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


def points(number: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw inputs for `small_net`, of two classes."""
    inputs = torch.randn(number, 3, generator=torch.Generator().manual_seed(seed))
    return inputs, (inputs[:, 0] > 0).long()


def point_data() -> InMemory:
    """Make data of 40 training and 20 validation points."""
    return InMemory(points(), points(20, 1), eval_batch_size=16)
