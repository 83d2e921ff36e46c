"""WeightNorms with and without spectral norms, in ordinary and in replicated runs."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lnsgd import rng
from lnsgd.callbacks import WeightNorms
from lnsgd.data import InMemory
from lnsgd.loggers import CSVLogger
from lnsgd.losses import CrossEntropy
from lnsgd.models import MLP, XavierNormal
from lnsgd.modules import Classifier
from lnsgd.replicas import ReplicaGrid, ReplicatedData, ReplicatedModule

STEPS = 4
REPLICAS = ReplicaGrid(seeds=2, lr=[0.01, 0.5]).replicas(0)
SPECTRAL = {"spectral_norm", "spectral_norm_product", "norm_product"}


def data(*shape):
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(30, *shape, generator=generator), torch.randint(3, (30,), generator=generator)
    return InMemory((inputs, labels), batch_size=5)


def mlp(*hidden):
    with rng.forked(0, "init"):
        return MLP([6, *hidden, 3], init=XavierNormal())


def classifier(net):
    return Classifier(net, CrossEntropy(), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5))


def fit(folder, module, source, *callbacks):
    """Return measured values by (step, replica, measure, layer)."""
    pl.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=CSVLogger(str(folder), resume=False),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_steps=STEPS,
    ).fit(module, datamodule=source)
    rows = pq.read_table(folder / "measures.parquet").to_pylist()
    assert {row["split"] for row in rows} == {""}
    return {(row["step"], row["replica"], row["measure"], row["layer"]): row["value"] for row in rows}


def assert_norms_of(found, step, replica, module):
    weights = {name: p.detach().double().numpy() for name, p in module.named_parameters() if p.ndim == 2}
    assert len(weights) == len(module.net.layers)
    decomposed = {name: np.linalg.svd(weight, compute_uv=False) for name, weight in weights.items()}
    for name, values in decomposed.items():
        assert found[step, replica, "spectral_norm", name] == pytest.approx(values[0], rel=1e-12)
    largest = np.prod([values[0] for values in decomposed.values()])
    frobenius = np.prod([np.linalg.norm(weight) for weight in weights.values()])
    assert found[step, replica, "spectral_norm_product", ""] == pytest.approx(largest, rel=1e-12)
    assert found[step, replica, "norm_product", ""] == pytest.approx(frobenius, rel=1e-12)


def test_norms_of_initial_and_final_weights(tmp_path):
    module = classifier(mlp(8, 7))
    found = fit(tmp_path, module, data(6), WeightNorms(spectral=True, at_steps=[2]))
    assert {step for step, *_ in found} == {0, 2, STEPS}
    assert_norms_of(found, 0, 0, classifier(mlp(8, 7)))
    assert_norms_of(found, STEPS, 0, module)
    assert found[0, 0, "spectral_norm_product", ""] != found[STEPS, 0, "spectral_norm_product", ""]
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"spectral_norm/net.layers.0.weight", "spectral_norm_product", "norm_product"} <= set(header)


def test_norms_of_every_replica(tmp_path):
    module = ReplicatedModule(classifier(mlp(8)), REPLICAS)
    found = fit(tmp_path, module, ReplicatedData(data(6), REPLICAS), WeightNorms(spectral=True, at_steps=[2]))
    for replica in range(len(REPLICAS)):
        assert_norms_of(found, STEPS, replica, module.replica(replica))
    assert len({found[STEPS, replica, "norm_product", ""] for replica in range(len(REPLICAS))}) == len(REPLICAS)


def test_spectral_norms_are_off_by_default_and_change_no_other(tmp_path):
    callbacks = {name: WeightNorms(spectral=spectral) for name, spectral in (("with", True), ("without", False))}
    found = {name: fit(tmp_path / name, classifier(mlp(8)), data(6), callback) for name, callback in callbacks.items()}
    assert {measure for _, _, measure, _ in found["without"]} == {"norm", "bias_mean", "bias_max"}
    others = {key: value for key, value in found["with"].items() if key[2] not in SPECTRAL}
    assert found["without"] == others
    assert WeightNorms().spectral is False


def test_convolution_filters_are_left_out(tmp_path):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 3, 3))
    found = fit(tmp_path, classifier(net), data(2, 5, 5), WeightNorms(spectral=True))
    assert {layer for _, _, measure, layer in found if measure == "spectral_norm"} == {"net.3.weight"}
    assert (STEPS, 0, "norm", "net.0.weight") in found
    for measure in ("spectral_norm_product", "norm_product"):
        assert math.isnan(found[STEPS, 0, measure, ""])


def test_spectral_setting_is_part_of_the_state_key():
    assert WeightNorms(spectral=True).state_key != WeightNorms().state_key
