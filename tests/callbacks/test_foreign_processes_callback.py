"""Two processes measure foreign data like one."""

import pytest
import torch
from torch.utils.data import DataLoader, SubsetRandomSampler

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, GradientNorm, HessianTrace, Margin, Performance
from tests.callbacks.foreign_project import Examples, loader, project, rows, tensors, trainer_in

# Weights, losses and traces of float64 runs differ by the order of summation only.
SUMMATION = {"rel": 1e-9, "abs": 1e-11, "nan_ok": True}


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def train(folder, devices):
    """Uneven shares of 21 augmented training images of 41, and of 13 validation images."""
    data = DataLoader(
        Examples(*tensors(41, 1), augment=True), 5 // devices, sampler=SubsetRandomSampler(range(0, 41, 2))
    )
    callbacks = [
        ActiveNeurons(),
        ClassAssociation(threshold=1.2, histograms=0),
        GradientNorm(examples=9, max_overhead=None),
        HessianTrace(examples=9, method="hutchinson", max_probes=16, max_overhead=None),
        Margin(),
        Performance(),
    ]
    strategy = "ddp_fork" if devices > 1 else "auto"
    trainer = trainer_in(folder, callbacks, devices=devices, strategy=strategy)
    trainer.fit(project(lr=0.0), data, loader(13, seed=2, batch_size=4))
    return rows(folder, 0)


def test_two_processes_measure_the_same_as_one(tmp_path):
    one, two = (train(tmp_path / str(devices), devices) for devices in (1, 2))
    counts = {key: value for key, value in one.items() if key[1].endswith("_count")}
    # 2 measures × 2 splits × (2 sites and their total)
    assert len(counts) == 12 and {key: two[key] for key in counts} == counts
    assert two == pytest.approx(one, **SUMMATION)
    assert {key[2] for key in one} == {"train", "val"}
