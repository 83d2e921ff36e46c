"""Measuring on foreign DataLoaders changes no bit of training, and a resumed run measures the same."""

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

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
    SingularValues,
    SpectralDensity,
    StopAtLoss,
    StopAtMargin,
    StopAtZeroError,
    TopEigenvalues,
    WeightNorms,
)
from tests.callbacks.foreign_project import (
    Examples,
    Network,
    Project,
    loader,
    package,
    project,
    rows,
    tensors,
    trainer_in,
)


def measuring(**options):
    data = {"examples": 12, **options}
    return [
        ActiveNeurons(**data),
        ClassAssociation(**data, histograms=1),
        DeadNeurons(**data),
        DistanceFromInit(),
        GradientNorm(**data, max_overhead=None),
        HessianTrace(**data, max_overhead=None),
        ImplicitRegularizer(**data, max_overhead=None),
        LargestOutput(**data),
        Margin(**data),
        Performance(**data),
        SingularValues(**data),
        SpectralDensity(examples=12, probes=1, steps=2),
        StopAtLoss(0.0, **data),
        StopAtMargin(1e9, **data),
        StopAtZeroError(1000, **data),
        TopEigenvalues(**data, max_products=4, max_overhead=None),
        WeightNorms(),
    ]


class Losses(pl.Callback):
    """A callback that keeps the loss of every step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())


class Intruder(pl.Callback):
    """A careless callback that reads the Trainer's own loader."""

    def on_train_epoch_end(self, trainer, module):
        next(iter(trainer.train_dataloader))


class HookedProject(Project):
    """A project that adds noise on the device while it trains, and only then."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        inputs, labels = batch
        return (inputs + torch.rand_like(inputs) if self.trainer.training else inputs), labels


def train(folder, callbacks, workers, kind=Project):
    """Return losses, weights, and the global random state after two epochs."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    module = kind(Network(dropout=0.3))
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    data = DataLoader(Examples(*tensors(33, 1), augment=True), 8, shuffle=True, **options)
    losses = Losses()
    trainer_in(folder, [*callbacks, losses], max_epochs=2).fit(module, data, loader(13, seed=2))
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    return losses.values, [p.detach().clone() for p in module.parameters()], states


def same(run, other):
    (losses, weights, (torch_state, *states)) = run
    (other_losses, other_weights, (other_torch_state, *other_states)) = other
    equal = losses == other_losses and all(map(torch.equal, weights, other_weights))
    return equal and torch.equal(torch_state, other_torch_state) and states == other_states


@pytest.mark.parametrize(
    ("workers", "kind", "schedule"),
    [
        pytest.param(0, Project, {"every_n_steps": 2}, id="every-second-step"),
        pytest.param(0, HookedProject, {}, id="augmented-on-the-device"),
        pytest.param(1, Project, {}, id="persistent-worker"),
    ],
)
def test_callbacks_change_no_bit(tmp_path, workers, kind, schedule):
    alone = train(tmp_path / "alone", [], workers, kind)
    assert len(set(alone[0])) == 10
    assert same(train(tmp_path / "measured", measuring(**schedule), workers, kind), alone)
    assert len(rows(tmp_path / "measured")) > 100


def test_comparison_notices_a_careless_callback(tmp_path):
    assert not same(train(tmp_path / "careless", [Intruder()], 0), train(tmp_path / "alone", [], 0))


class LoggingProject(Project):
    """A project that logs within its forward pass."""

    def forward(self, inputs):
        outputs = super().forward(inputs)
        self.log("mean_output", outputs.mean(), on_step=False, on_epoch=True, batch_size=len(inputs))
        return outputs


def test_what_a_forward_pass_logs_while_measuring_is_not_logged(tmp_path):
    found = []
    for callbacks in ([], [Performance(["train"], every_n_steps=1), HessianTrace(every_n_steps=2)]):
        trainer = trainer_in(tmp_path / str(len(callbacks)), callbacks, max_epochs=1)
        trainer.fit(project(LoggingProject), loader())
        found.append(trainer.callback_metrics["mean_output"].item())
    assert found[0] == found[1]


def test_hooks_that_augment_training_leave_measured_data_alone(tmp_path):
    losses = []
    for kind in (Project, HookedProject):
        trainer_in(tmp_path / kind.__name__, [Performance()]).fit(project(kind), loader(), loader(13, seed=2))
        found = rows(tmp_path / kind.__name__, 0)
        losses.append([found[0, "loss", split, ""] for split in ("train", "val")])
    assert losses[0] == losses[1]


def test_resumed_run_measures_as_an_uninterrupted_one(tmp_path):
    def fit(folder, epochs, **options):
        callbacks = [*measuring(), package.callbacks.ModelCheckpoint(folder, save_last=True)]
        trainer = trainer_in(folder, callbacks, max_epochs=epochs, enable_checkpointing=True)
        module = project()
        trainer.fit(module, loader(), loader(13, seed=2), **options)
        return module

    undisturbed = fit(tmp_path / "undisturbed", 2)
    fit(tmp_path / "resumed", 1)
    checkpoint = tmp_path / "resumed" / "last.ckpt"
    resumed = fit(tmp_path / "resumed", 2, ckpt_path=checkpoint, weights_only=False)
    assert all(map(torch.equal, undisturbed.parameters(), resumed.parameters()))
    assert rows(tmp_path / "resumed") == pytest.approx(rows(tmp_path / "undisturbed"), nan_ok=True, rel=0, abs=0)
