"""A foreign project: modules and data sets that know nothing of lnsgd, written for either Lightning.

``conftest.py`` runs each test of a module ``test_foreign_…`` under both packages.
"""

import importlib
import random

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

CLASSES = 3
INPUTS = 6


class Network(nn.Module):
    """A network with two hidden layers, and dropout, which draws from the global generator."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 7), nn.ReLU())
        self.head = nn.Linear(7, CLASSES)

    def forward(self, x):
        return self.head(self.layers(x))


class Package:
    """The Lightning that the present test uses, such as ``pytorch_lightning``."""

    def __init__(self, name):
        self.use(name)

    def use(self, name):
        """Use another package from here on."""
        self.name = name

    def __getattr__(self, name):
        """Return what the package has under a name."""
        return getattr(importlib.import_module(self.name), name)


PACKAGES = ("pytorch_lightning", "lightning.pytorch")
package = Package(PACKAGES[0])


class ForeignModule:
    """Base of LightningModules: its objects are LightningModules of the package that the test uses."""

    def __new__(cls, *args, **options):
        if package.LightningModule not in cls.__mro__:
            names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
            cls = type(cls.__name__, (cls, package.LightningModule), names)
        return object.__new__(cls)


class Project(ForeignModule):
    """A module that trains any network on batches (inputs, labels)."""

    def __init__(self, net=None, lr=0.1):
        super().__init__()
        self.net = net or Network()
        self.lr = lr
        self.loss = nn.CrossEntropyLoss(reduction="none")

    def forward(self, inputs):
        return self.net(inputs)

    def training_step(self, batch, batch_idx):
        return self.loss(self(batch[0]), batch[1]).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(self(batch[0]), batch[1]).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class DictProject(Project):
    """The project with dictionary batches, as the data sets of Hugging Face give them."""

    def training_step(self, batch, batch_idx):
        return super().training_step((batch["pixel_values"], batch["labels"]), batch_idx)

    def validation_step(self, batch, batch_idx):
        super().validation_step((batch["pixel_values"], batch["labels"]), batch_idx)


class Examples(Dataset):
    """A data set that counts readings and can augment with all three global generators."""

    def __init__(self, inputs, labels, augment=False, as_dict=False):
        self.inputs, self.labels = inputs, labels
        self.augment, self.as_dict = augment, as_dict
        self.reads = [0] * len(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.reads[index] += 1
        x, y = self.inputs[index], int(self.labels[index])
        if self.augment:
            x = x + 0.3 * torch.randn(INPUTS) + random.random() + np.random.rand()
        return {"pixel_values": x, "labels": y} if self.as_dict else (x, y)


def tensors(examples, seed):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(examples, INPUTS, generator=generator, dtype=torch.get_default_dtype()),
        torch.randint(CLASSES, (examples,), generator=generator),
    )


def loader(examples=33, seed=1, batch_size=8, **options):
    return DataLoader(TensorDataset(*tensors(examples, seed)), batch_size, **options)


def project(kind=Project, **options):
    torch.manual_seed(0)
    return kind(**options)


def trainer_in(folder, callbacks, **options):
    return package.Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"enable_checkpointing": False, "max_epochs": 1, **options},
    )


def rows(folder, step=None):
    """Return what callbacks measured, by step, measure, split and layer."""
    table = pq.read_table(folder / "measures.parquet").to_pylist()
    return {
        (row["step"], row["measure"], row["split"], row["layer"]): row["value"]
        for row in table
        if step is None or row["step"] == step
    }
