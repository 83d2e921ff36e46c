"""Measuring never changes training: the bits are the same with and without callbacks."""

from functools import cache

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lnsgd.callbacks import (
    ActiveNeurons,
    ClassAssociation,
    DeadNeurons,
    DistanceFromInit,
    GradientNorm,
    HessianTrace,
    ImplicitRegularizer,
    LargestOutput,
    Margin,
    Performance,
    SpectralDensity,
    StopAtLoss,
    StopAtMargin,
    StopAtZeroError,
    TopEigenvalues,
    WeightNorms,
)
from lnsgd.data import MNIST
from lnsgd.label_noise import UniformNoise
from lnsgd.models import MLP
from lnsgd.modules import Classifier


class DropoutBatchNorm(nn.Module):
    """A network that draws from the global generator and has running statistics."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        return self.head(self.body(x))


NETS = {"mlp": lambda: MLP([784, 12, 10]), "dropout-batchnorm": DropoutBatchNorm}


def measuring(**schedule):
    """Return one of each measuring callback."""
    data = {"examples": 100}
    return [
        ActiveNeurons(**data, **schedule),
        ClassAssociation(**data, **schedule, histograms=1),
        DistanceFromInit(**schedule),
        HessianTrace(**data, **schedule, noisy_labels=True, max_overhead=None),
        Performance(**data, **schedule),
        WeightNorms(spectral=True, **schedule),
        DeadNeurons(**data, **schedule),
        LargestOutput(**data, **schedule),
        Margin(**data, **schedule),
        StopAtLoss(0.0, **data, **schedule),
        StopAtMargin(1e9, **data, **schedule),
        StopAtZeroError(1000, **data, **schedule),
        TopEigenvalues(**data, **schedule, max_products=4, max_overhead=None),
        GradientNorm(**data, **schedule, max_overhead=None),
        ImplicitRegularizer(**data, **schedule, max_overhead=None),
        SpectralDensity(**data, probes=1, steps=2),
    ]


class Losses(pl.Callback):
    """A callback that keeps the loss of every step and of every validation."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.values.append(trainer.callback_metrics["val/loss"].item())


class Intruder(pl.Callback):
    """A careless callback that draws once from the global generator."""

    def on_train_batch_end(self, *args):
        torch.rand(1)


class Forwarder(pl.Callback):
    """A careless callback that makes a forward pass in training mode."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        with torch.no_grad(), torch.random.fork_rng():
            module(batch[0] + 1)


def train(folder, net, callbacks):
    """Return losses and final weights and buffers of two epochs of six steps."""
    torch.manual_seed(0)
    module = Classifier(
        NETS[net](),
        label_noise=UniformNoise(0.2),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    )
    losses = Losses()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[*callbacks, losses],
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=MNIST(source="sample", subset=300, batch_size=50, val_size=200))
    return losses.values, {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the run without callbacks, by the name of the network."""
    return cache(lambda net: train(tmp_path_factory.mktemp(net), net, []))


def same(run, other):
    """Return whether losses, weights and buffers agree in every bit."""
    (losses, weights), (other_losses, other_weights) = run, other
    assert weights.keys() == other_weights.keys()
    return losses == other_losses and all(torch.equal(value, other_weights[name]) for name, value in weights.items())


@pytest.mark.parametrize("net", NETS)
def test_run_repeats_itself_bit_for_bit(alone, net, tmp_path):
    losses, _ = alone(net)
    assert len(set(losses)) == 2 * (6 + 1)  # steps and validations, all different
    assert same(train(tmp_path, net, []), alone(net))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param({"every_n_steps": 1}, id="every-step"),
        pytest.param({}, id="every-epoch"),
        pytest.param({"log_spaced": 3}, id="log-spaced"),
    ],
)
def test_callbacks_change_no_bit(alone, net, schedule, tmp_path):
    assert same(train(tmp_path, net, measuring(**schedule)), alone(net))


@pytest.mark.parametrize("careless", [Intruder, Forwarder])
def test_comparison_notices_a_careless_callback(alone, careless, tmp_path):
    assert not same(train(tmp_path, "dropout-batchnorm", [careless()]), alone("dropout-batchnorm"))
