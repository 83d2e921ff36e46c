"""HiddenUnits logs the numbers of its measure for every replica and does not change training."""

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch

from lnsgd import measures
from lnsgd.callbacks import HiddenUnits
from lnsgd.data import GaussianInputs, SinglePoint
from lnsgd.label_noise import GaussianNoise, NoNoise
from lnsgd.losses import LogisticLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier, Regressor
from lnsgd.replicas import ReplicaGrid, ReplicatedData, ReplicatedModule

REPLICAS = ReplicaGrid(seeds=2, noise=[0.0, 0.5]).replicas(0)
STEPS, UNITS = 20, 3


def fit(module, data, folder, callbacks):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)


def replicated(folder, callbacks):
    """Return the replicated module and its data after a few steps."""
    cell = Regressor(MLP([3, UNITS, 1], activation="tanh", bias=False), label_noise=GaussianNoise(0.1))
    module, data = ReplicatedModule(cell, REPLICAS), ReplicatedData(SinglePoint(), REPLICAS)
    fit(module, data, folder, callbacks)
    return module, data


def test_numbers_equal_those_of_the_measure(tmp_path):
    module, data = replicated(tmp_path, [HiddenUnits(every_n_steps=10)])
    rows = pq.read_table(tmp_path / "measures.parquet").to_pylist()
    assert sorted({row["step"] for row in rows}) == [0, 10, STEPS]
    for replica in range(len(REPLICAS)):
        inputs = data.of_replica(replica).splits["train"].inputs
        units = measures.hidden_units(module.replica(replica).net, inputs)
        expected = {}
        for j in range(UNITS):
            expected["activation", "train", f"net.activations.0.{j}"] = units.activations[0, j].item()
            expected["output_weight", "", f"net.activations.0.{j}"] = units.output_weights[j].item()
        found = {
            (row["measure"], row["split"], row["layer"]): row["value"]
            for row in rows
            if row["replica"] == replica and row["step"] == STEPS
        }
        assert found == pytest.approx(expected, rel=1e-6)


def test_activation_is_a_mean_over_the_training_set(tmp_path):
    data = GaussianInputs(dimension=2, train_size=7, test_size=1, eval_batch_size=3)
    module = Classifier(MLP([2, UNITS, 1]), LogisticLoss(), NoNoise())
    fit(module, data, tmp_path, [HiddenUnits(every_n_steps=STEPS)])
    rows = pq.read_table(tmp_path / "measures.parquet").to_pylist()
    found = [row["value"] for row in rows if row["measure"] == "activation" and row["step"] == STEPS]
    units = measures.hidden_units(module.net, data.splits["train"].inputs)
    assert found == pytest.approx(units.activations.mean(0).tolist(), rel=1e-5)


def test_training_is_unchanged(tmp_path):
    with_it, _ = replicated(tmp_path / "with", [HiddenUnits(every_n_steps=3)])
    without, _ = replicated(tmp_path / "without", [])
    for one, other in zip(with_it.stack.parameters(), without.stack.parameters()):
        assert torch.equal(one, other)
