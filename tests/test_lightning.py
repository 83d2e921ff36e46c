"""Everything that a Trainer takes is accepted by the Trainers of both Lightnings, and behaves the same in them."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest
import torch
from lightning_utilities.core.overrides import is_overridden
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from lnsgd import callbacks, compat, data, loggers, modules
from lnsgd import lightning as ours
from lnsgd.callbacks import ActiveNeurons, Performance, StopAtLoss, StopOnSignal
from lnsgd.data import InMemory
from lnsgd.label_noise import UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.measuring.loaders import LoaderBatches
from lnsgd.modules import Classifier
from lnsgd.modules.layer_sync import CPUSyncBatchNorm
from tests.callbacks.foreign_project import PACKAGES, loader, tensors

ROOT = Path(__file__).parents[1]

# What the package is loaded for, and the class of Lightning that it must be one of.
KINDS = {
    "Callback": [getattr(callbacks, name) for name in callbacks.__all__ if name != "Measurement"],
    "LightningModule": [modules.Classifier, modules.Regressor],
    "LightningDataModule": [data.InMemory, data.MNIST],
}


@pytest.fixture(params=PACKAGES)
def package(request):
    return importlib.import_module(request.param)


def test_public_classes_derive_from_those_of_either_package(package):
    for kind, classes in KINDS.items():
        assert [c for c in classes if not issubclass(c, getattr(package, kind))] == []
    parts = [importlib.import_module(f"{package.__name__}.{room}") for room in ("callbacks", "loggers", "plugins")]
    assert issubclass(StopOnSignal, parts[0].Checkpoint)
    assert issubclass(callbacks.StepProgressBar, parts[0].ProgressBar)
    assert issubclass(CSVLogger, parts[1].Logger) and issubclass(loggers.WandbLogger, parts[1].WandbLogger)
    assert issubclass(CPUSyncBatchNorm, parts[2].LayerSync)


FRESH = """
import sys
import lnsgd.callbacks, lnsgd.data, lnsgd.loggers, lnsgd.modules
from lnsgd import lightning
early = lnsgd.callbacks.ActiveNeurons(), lnsgd.modules.Classifier(lnsgd.modules.classifier.CrossEntropy())
print([name for name in sys.modules if name.partition(".")[0] == "lightning"], end=";")
import lightning.pytorch as L
print(isinstance(early[0], L.Callback), isinstance(early[1], L.LightningModule), end=";")
print([name for name in lightning.__all__ if len(getattr(lightning, name).__bases__) != 2], end=";")
print([finder for finder in sys.meta_path if type(finder).__module__ == "lnsgd.lightning"])
"""


def test_second_package_may_be_imported_later_and_is_not_loaded_before():
    run = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[];True True;[];[]"


def hooks(base):
    return [name for name in dir(base) if isinstance(getattr(base, name), FunctionType) and not name.startswith("__")]


@pytest.mark.parametrize(("kind", "own"), [("LightningModule", "training_step"), ("LightningDataModule", "setup")])
def test_only_overridden_hooks_count_as_overridden(kind, own):
    """Lightning compares the code of a hook with that of its own class."""
    names = {own: lambda self: None}
    mine = type("Mine", (getattr(ours, kind),), names)()
    for name in (*PACKAGES, PACKAGES[0]):
        trained_by = importlib.import_module(name)
        mine.trainer = trainer = trained_by.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        assert compat.is_of_unified_package(trainer) == (name == "lightning.pytorch")
        base = getattr(trained_by, kind)
        plain = type("Plain", (base,), names)()
        found = {hook for hook in hooks(base) if is_overridden(hook, mine, base)}
        assert own in found and found == {hook for hook in hooks(base) if is_overridden(hook, plain, base)}
        for instance in (mine, plain):
            assert {hook for hook in hooks(base) if compat.is_overridden(hook, instance)} == {own}


def test_overridden_hooks_of_foreign_objects_are_found(package):
    class Foreign(package.LightningModule):
        def forward(self, x):
            return x

    assert compat.is_overridden("forward", Foreign()) and not compat.is_overridden("val_dataloader", Foreign())
    assert compat.is_lightning_module(Foreign()) and not compat.is_lightning_module(nn.Linear(1, 1))
    assert not compat.is_overridden("forward", package.LightningModule())


def train(package, folder):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    module = Classifier(net, label_noise=UniformNoise(0.2))
    trainer = package.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[ActiveNeurons(), Performance(), StopAtLoss(0.0), StopOnSignal()],
        logger=CSVLogger(str(folder)),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=InMemory(tensors(33, 1), tensors(13, 2), tensors(9, 3), batch_size=8))
    trainer.test(module, datamodule=trainer.datamodule, verbose=False)
    return module.state_dict(), (folder / "metrics.csv").read_text(), trainer


def test_own_modules_train_alike_in_both_trainers(tmp_path):
    runs = [train(importlib.import_module(name), tmp_path / name) for name in PACKAGES]
    (weights, numbers, _), (other_weights, other_numbers, trainer) = runs
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert numbers == other_numbers and "active_fraction/val/net.1" in numbers
    assert isinstance(trainer.callbacks[-1], StopOnSignal | type(trainer.checkpoint_callback))


@pytest.mark.parametrize("name", PACKAGES)
def test_command_line_of_either_package_accepts_callbacks_modules_and_data(name):
    cli = importlib.import_module(f"{name}.cli").LightningCLI(
        save_config_callback=None,
        run=False,
        args=[
            "--model=lnsgd.modules.Classifier",
            "--model.net=lnsgd.models.MLP",
            "--model.net.widths=[784, 8, 10]",
            "--data=lnsgd.data.MNIST",
            "--trainer.accelerator=cpu",
            "--trainer.logger=lnsgd.loggers.CSVLogger",
            "--trainer.logger.save_dir=.",
            *(
                f"--trainer.callbacks+=lnsgd.callbacks.{each}"
                for each in ("ActiveNeurons", "StopOnSignal", "StepProgressBar")
            ),
            "--trainer.callbacks+=lnsgd.callbacks.StopAtLoss",
            "--trainer.callbacks.loss=0.1",
        ],
    )
    assert type(cli.model) is Classifier and type(cli.trainer.logger) is CSVLogger
    assert {ActiveNeurons, StopAtLoss, StopOnSignal} <= {type(callback) for callback in cli.trainer.callbacks}


def test_loaders_and_samplers_of_either_package_are_read(package):
    fabric = "lightning_fabric" if package.__name__ == "pytorch_lightning" else "lightning.fabric"
    wrapper = importlib.import_module(f"{fabric}.utilities.distributed").DistributedSamplerWrapper
    numbers = TensorDataset(torch.arange(23))
    sampler = wrapper(SubsetRandomSampler([5, 3, 19]), num_replicas=2, rank=1)
    read = LoaderBatches(DataLoader(numbers, 5, sampler=sampler), "train")
    assert [batch.tolist() for (batch,), _ in read] == [[5, 3, 19]]
    combined = importlib.import_module(f"{package.__name__}.utilities").CombinedLoader
    one = loader()
    assert compat.loaders_of(combined([one])) == [one] and compat.loaders_of(one) is one
