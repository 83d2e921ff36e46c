"""RecoveryError measures every replica against its own matrix and does not change training."""

from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from lnsgd.callbacks import RecoveryError
from lnsgd.data import InMemory, MatrixSensing
from lnsgd.label_noise import GaussianNoise
from lnsgd.measures.closed_forms import recovery_error
from lnsgd.models import MLP, MatrixFactorization
from lnsgd.modules import Regressor
from lnsgd.replicas import ReplicaGrid, ReplicatedData, ReplicatedModule


def regressor() -> Regressor:
    return Regressor(
        MatrixFactorization(4),
        label_noise=GaussianNoise(0.3),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.005),
    )


def trainer(folder: Path, *callbacks: pl.Callback) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    more = {"enable_model_summary": False, "limit_val_batches": 0, "accelerator": "cpu"}
    return pl.Trainer(max_steps=20, callbacks=list(callbacks), default_root_dir=folder, **quiet, **more)


def test_every_replica_is_compared_with_its_own_matrix(tmp_path: Path) -> None:
    replicas = ReplicaGrid(seeds=2, noise=[0.0, 0.3]).replicas(0)
    module, data = ReplicatedModule(regressor(), replicas), ReplicatedData(MatrixSensing(4, 1), replicas)
    trainer(tmp_path, RecoveryError(every_n_steps=10)).fit(module, datamodule=data)
    table = pd.read_parquet(tmp_path / "measures.parquet")
    assert table["measure"].unique().tolist() == ["recovery_error"]
    assert table["step"].unique().tolist() == [0, 10, 20]
    for r, replica in enumerate(replicas):
        target = MatrixSensing(4, 1, seed=replica.seed).target
        found = table[table["replica"] == r].set_index("step")["value"]
        assert found[0] == recovery_error(torch.eye(4), target)
        assert found[20] == recovery_error(module.replica(r).net.factor, target)


def test_measuring_does_not_change_training(tmp_path: Path) -> None:
    factors = []
    for callbacks in ([], [RecoveryError(every_n_steps=1)]):
        module = regressor()
        trainer(tmp_path, *callbacks).fit(module, datamodule=MatrixSensing(4, 1))
        factors.append(module.net.factor.detach())
    assert torch.equal(*factors)
    assert not torch.equal(factors[0], torch.eye(4))


def test_other_networks_and_data_are_refused(tmp_path: Path) -> None:
    data = InMemory((torch.ones(3, 4, 4), torch.ones(3, 1)))
    with pytest.raises(ValueError, match="not for a MatrixFactorization on InMemory; leave the measure out"):
        trainer(tmp_path, RecoveryError()).fit(regressor(), datamodule=data)
    with pytest.raises(ValueError, match="not for a MLP on MatrixSensing"):
        trainer(tmp_path, RecoveryError()).fit(Regressor(MLP([16, 3, 1])), datamodule=MatrixSensing(4, 1))
