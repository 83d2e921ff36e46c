"""The memory of a device does not grow along training."""

import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lnsgd.callbacks import ActiveNeurons, HessianTrace
from lnsgd.data import InMemory
from lnsgd.label_noise import UniformNoise
from lnsgd.losses import CrossEntropy
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.replicas import Replica, ReplicatedData, ReplicatedModule

EPOCHS, BEGIN = 8, 2

# Bytes of numbers that are held at the end of some epochs; CUDA gives at least 512 to a tensor, so a tensor for each of
# the 20 steps would be ten times that.
FLUCTUATION = 1000


def bytes_on(device: torch.device) -> int:
    """Return the bytes of all tensors on a device: by the allocator of CUDA, or by a search through the new objects."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    found = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, nn.Parameter) and one.device.type == "cpu":
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@pytest.fixture(autouse=True)
def only_new_objects() -> Iterator[None]:
    """Leave the objects of other tests out of the search, which would take seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Memory(pl.Callback):
    """Records the memory at the end of each epoch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seen: list[int] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.append(bytes_on(self.device))


class Leaking(pl.Callback):
    """Keeps a tensor of every step on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kept: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.kept.append(torch.zeros(1000, device=self.device))


def memory_of(device: torch.device, folder: Path, replicated: bool, *callbacks: pl.Callback) -> list[int]:
    torch.manual_seed(0)
    inputs, labels = torch.randn(64, 6), torch.randint(3, (64,))
    module: pl.LightningModule = Classifier(
        MLP([6, 16, 3]), CrossEntropy(), UniformNoise(0.2), partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    )
    data = InMemory((inputs, labels), (inputs, labels), batch_size=16)
    if replicated:
        replicas = [Replica(0), Replica(1)]
        module, data = ReplicatedModule(module, replicas), ReplicatedData(data, replicas)
    watch = Memory(device)
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=EPOCHS,
        callbacks=[*callbacks, watch],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return watch.seen


@pytest.mark.parametrize("replicated", [False, True], ids=["one", "replicas"])
def test_memory_of_tensors_does_not_grow(device, tmp_path, replicated):
    measures = [ActiveNeurons(), HessianTrace(max_overhead=None, max_probes=16, method="hutchinson")]
    seen = memory_of(device, tmp_path, replicated, *measures)
    assert seen[-1] - seen[BEGIN] < FLUCTUATION, seen


def test_leak_is_found(device, tmp_path):
    seen = memory_of(device, tmp_path, False, Leaking(device))
    assert seen[-1] - seen[BEGIN] >= (EPOCHS - 1 - BEGIN) * 4 * 4000
