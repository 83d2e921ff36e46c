"""CurveShape measures every replica at its steps and does not change training."""

from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from lnsgd.callbacks import CurveShape
from lnsgd.data import Points1D
from lnsgd.label_noise import GaussianNoise
from lnsgd.measures.geometry import chord_deviation, convexity_changes, curve_length, polyline
from lnsgd.models import MLP, Normal
from lnsgd.modules import Regressor
from lnsgd.replicas import ReplicaGrid, ReplicatedData, ReplicatedModule


def regressor(**net) -> Regressor:
    torch.manual_seed(0)
    return Regressor(
        MLP([1, 6, 1], init=Normal(1.0, biases=True), **{"skip": True, **net}),
        label_noise=GaussianNoise(0.3),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.005),
    )


def trainer(folder: Path, *callbacks: pl.Callback) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    more = {"enable_model_summary": False, "limit_val_batches": 0, "accelerator": "cpu"}
    return pl.Trainer(max_steps=20, callbacks=list(callbacks), default_root_dir=folder, **quiet, **more)


def test_every_replica_is_measured(tmp_path: Path) -> None:
    replicas = ReplicaGrid(seeds=2, noise=[0.0, 0.3]).replicas(0)
    module, data = ReplicatedModule(regressor(), replicas), ReplicatedData(Points1D(), replicas)
    trainer(tmp_path, CurveShape(every_n_steps=10)).fit(module, datamodule=data)
    table = pd.read_parquet(tmp_path / "measures.parquet")
    assert table["step"].unique().tolist() == [0, 10, 20]
    train = data.of_replica(0).splits["train"]
    inputs, labels = train.inputs.double().numpy()[:, 0], train.labels.double().numpy()[:, 0]
    for r in range(len(replicas)):
        x, y = polyline(module.replica(r).net)
        found = table[(table["replica"] == r) & (table["step"] == 20)].set_index("measure")["value"].to_dict()
        assert found == {
            "curve_length": curve_length(x, y),
            "convexity_changes": convexity_changes(x, y),
            "chord_deviation": chord_deviation(x, y, inputs, labels),
        }


def test_no_deviation_without_three_points_on_a_line(tmp_path: Path) -> None:
    trainer(tmp_path, CurveShape(at_steps=[20])).fit(regressor(), datamodule=Points1D(label_std=1.0))
    table = pd.read_parquet(tmp_path / "measures.parquet").set_index(["measure", "step"])["value"]
    assert table["curve_length"].notna().all()
    assert table["chord_deviation"].isna().all()


def test_measuring_does_not_change_training(tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], [CurveShape(every_n_steps=1)]):
        module = regressor()
        trainer(tmp_path, *callbacks).fit(module, datamodule=Points1D())
        ends.append(list(module.net.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="polyline: widths"):
        trainer(tmp_path, CurveShape(every_n_steps=5)).fit(regressor(activation="tanh"), datamodule=Points1D())
