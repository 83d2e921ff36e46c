"""Checkpoints with averaged weights: both are measured, and every row says which weights it is of."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from torch import nn

from lnsgd.analysis import analyze
from lnsgd.analysis.tables import Shown, measurement_lines
from lnsgd.callbacks import DistanceFromInit, WeightNorms
from lnsgd.data import MNIST
from lnsgd.losses import CrossEntropy
from lnsgd.measuring import WeightNormsMeasurer
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.records.measures import read_measures


def data():
    return MNIST(source="sample", subset=60, batch_size=20, val_size=20)


def module():
    torch.manual_seed(0)
    return Classifier(MLP([784, 5, 10]), CrossEntropy(), optimizer=lambda p: torch.optim.SGD(p, 0.5))


def trained(folder, averaging, epochs=3):
    found = module()
    keep = ModelCheckpoint(folder, filename="one", save_on_train_epoch_end=True)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[averaging, WeightNorms(averaged=isinstance(averaging, EMAWeightAveraging) or None), keep],
    )
    trainer.fit(found, datamodule=data())
    return found, trainer


def norms(table, **of):
    for name, value in of.items():
        table = table[table[name] == value]
    return table[table.measure == "norm"].set_index("layer").value.to_dict()


def own_norms(net):
    return {name: p.norm().item() for name, p in net.named_parameters()}


def test_both_weights_of_a_checkpoint_are_measured_and_named(tmp_path):
    trained(tmp_path, EMAWeightAveraging(decay=0.8))
    table = analyze([tmp_path / "one.ckpt"], model=module(), data=data(), measures=[WeightNormsMeasurer()])
    run = read_measures(tmp_path / "measures.parquet")
    last = run[run.step == run.step.max()]
    assert list(table.which_weights.unique()) == ["averaged", "trained"]
    for which in ("averaged", "trained"):
        assert norms(table, which_weights=which) == pytest.approx(norms(last, which_weights=which), rel=1e-12)
    assert norms(table, which_weights="averaged") != norms(table, which_weights="trained")
    lines = measurement_lines(table, Shown.CHOSEN, width=80)
    assert {"norm", "averaged/norm"} <= {line.partition(" ")[0] for line in lines}


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict"])
def test_averages_beside_the_weights_are_found_in_files_of_other_libraries(tmp_path, key):
    net = MLP([784, 5, 10])
    average = torch.optim.swa_utils.AveragedModel(net)
    average.update_parameters(net)
    with torch.no_grad():
        for p in net.parameters():
            p += 1
    average.update_parameters(net)
    torch.save({"state_dict": net.state_dict(), key: average.state_dict()}, tmp_path / "one.pth")
    table = analyze([tmp_path / "one.pth"], model=MLP([784, 5, 10]), data=data(), measures=[WeightNormsMeasurer()])
    for which, of in (("trained", net), ("averaged", average.module)):
        expected = {f"net.{name}": value for name, value in own_norms(of).items()}
        assert norms(table, which_weights=which) == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_saved_after_stochastic_averaging_is_of_the_averages(tmp_path):
    found, trainer = trained(tmp_path, StochasticWeightAveraging(0.1, swa_epoch_start=1))
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    for name, which in (("one", "trained"), ("after", "averaged")):
        table = analyze([tmp_path / f"{name}.ckpt"], model=module(), data=data(), measures=[WeightNormsMeasurer()])
        assert set(table.which_weights) == {which}
    assert norms(table) == pytest.approx(own_norms(found), rel=1e-6)


def test_a_checkpoint_without_averages_is_of_trained_weights(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    torch.save(copy.deepcopy(net.state_dict()), tmp_path / "one.pth")
    table = analyze([tmp_path / "one.pth"], model=net, data=data(), measures=[WeightNormsMeasurer()])
    assert set(table.which_weights) == {"trained"}


def test_a_run_with_averages_is_resumed_from_its_trained_weights(tmp_path):
    """Resuming continues the trained weights, so the distance goes on from θ₀ as without the stop."""

    def run(folder, epochs, **options):
        found = module()
        callbacks = [
            EMAWeightAveraging(decay=0.8),
            DistanceFromInit(averaged=True),
            ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False),
        ]
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=callbacks,
        )
        trainer.fit(found, datamodule=data(), weights_only=False, **options)
        table = read_measures(folder / "measures.parquet")
        return table[table.layer == ""][["step", "which_weights", "value"]].to_numpy().tolist()

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "stopped", 2)
    assert run(tmp_path / "stopped", 4, ckpt_path=tmp_path / "stopped" / "last.ckpt") == whole
