"""Two processes train like one with the same global batch."""

import csv
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch

from lnsgd import rng
from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, HessianTrace
from lnsgd.data import MNIST
from lnsgd.label_noise import GaussianNoise, LabelNoise, LabelSmoothing, UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.losses import CrossEntropy, LogisticLoss, Loss, SquaredLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier

# The last batch has 7 examples of 30, and 121 validation examples make the shares of both batches
# differ. In the second setting a process gets nothing of the last batch.
UNEVEN = {"subset": 97, "batch_size": 30}
EMPTY_SHARE = {"subset": 61, "batch_size": 20}

KINDS: dict[str, tuple[LabelNoise, Loss, dict[str, int]]] = {
    "uniform": (UniformNoise(0.4), LogisticLoss(), UNEVEN),
    "uniform-empty-share": (UniformNoise(0.4), LogisticLoss(), EMPTY_SHARE),
    "smoothing": (LabelSmoothing(0.4), CrossEntropy(), UNEVEN),
    "gaussian": (GaussianNoise(0.4), SquaredLoss(), UNEVEN),
}

# Weights, losses and traces of float64 runs differ by the order of summation only.
SUMMATION = {"rel": 1e-9, "abs": 1e-11}


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class RecordingClassifier(Classifier):
    """Leaves the targets of every batch in the run's folder, each process its own."""

    def counted(self, losses, outputs, labels, targets):
        trainer = self.trainer
        if trainer.training:
            folder = Path(trainer.default_root_dir) / "targets"
            folder.mkdir(parents=True, exist_ok=True)
            batch = trainer.fit_loop.epoch_loop.batch_idx
            name = f"epoch={trainer.current_epoch}-batch={batch}-rank={trainer.global_rank}.pt"
            torch.save((labels, targets), folder / name)
        return super().counted(losses, outputs, labels, targets)


def train(folder: Path, devices: int, kind: str) -> RecordingClassifier:
    label_noise, loss, sizes = KINDS[kind]
    with rng.forked(3, "init"):
        net = MLP([784, 12, 10])
    module = RecordingClassifier(net, loss, label_noise, partial(torch.optim.SGD, lr=0.05, momentum=0.9), seed=4)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        max_epochs=2,
        logger=CSVLogger(str(folder)),
        callbacks=[
            ActiveNeurons(every_n_steps=3),
            ClassAssociation(threshold=1.2, histograms=0),
            DistanceFromInit(),
            HessianTrace(examples=51, method="hutchinson", max_probes=16, noisy_labels=True, max_overhead=None),
            HessianTrace("val", examples=51, method="ggn", rtol=0.1, noisy_labels=True, max_overhead=None),
        ],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=MNIST(source="sample", val_size=121, eval_batch_size=60, seed=5, **sizes))
    return module


@pytest.fixture(scope="module", params=KINDS)
def runs(request, tmp_path_factory) -> dict[int, tuple[Path, RecordingClassifier]]:
    """Train one run with one process and with two; return both by the number of processes."""
    torch.set_default_dtype(torch.float64)
    folders = {devices: tmp_path_factory.mktemp(f"processes-{devices}") for devices in (1, 2)}
    found = {devices: (folder, train(folder, devices, request.param)) for devices, folder in folders.items()}
    torch.set_default_dtype(torch.float32)
    return found


def test_weights_are_equal_up_to_summation(runs):
    (_, one), (_, two) = runs[1], runs[2]
    with rng.forked(3, "init"):
        start = MLP([784, 12, 10])
    for ours, theirs, initial in zip(two.net.parameters(), one.net.parameters(), start.parameters(), strict=True):
        assert not torch.equal(theirs, initial)
        torch.testing.assert_close(ours, theirs, rtol=SUMMATION["rel"], atol=SUMMATION["abs"])


def test_targets_of_a_global_batch_do_not_depend_on_processes(runs):
    whole, parts = (sorted((runs[devices][0] / "targets").iterdir()) for devices in (1, 2))
    assert len(parts) == 2 * len(whole) == 16
    for k, path in enumerate(whole):
        for rank in (0, 1):
            for mine, everyones in zip(torch.load(parts[2 * k + rank]), torch.load(path)):
                assert torch.equal(mine, everyones[rank::2])


def logged(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_logged_numbers_are_equal(runs):
    one, two = logged(runs[1][0]), logged(runs[2][0])
    assert [row["step"] for row in one] == list(range(9))
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, **SUMMATION)
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert name in one[4] and name in one[8]


def test_measured_numbers_are_equal(runs):
    one, two = (pq.read_table(runs[devices][0] / "measures.parquet").to_pylist() for devices in (1, 2))
    keys = ("step", "epoch", "split", "measure", "layer")
    assert [[row[key] for key in keys] for row in two] == [[row[key] for key in keys] for row in one]
    counted = {"active_count", "active_fraction", "associated_count", "associated_fraction"}
    assert {row["measure"] for row in one} == counted | {"distance_from_init", "hessian_trace", "noisy_hessian_trace"}
    for ours, theirs in zip(two, one):
        if ours["measure"] in counted:
            assert ours["value"] == theirs["value"]
        else:
            assert ours["value"] == pytest.approx(theirs["value"], **SUMMATION)
            assert ours["stderr"] == pytest.approx(theirs["stderr"], **SUMMATION, nan_ok=True)


def test_two_processes_write_the_same_files_as_one(runs):
    def files(devices: int) -> set[str]:
        folder = runs[devices][0]
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pt"}

    assert files(2) == files(1) >= {"measures.parquet", "metrics.csv"}
