"""Two processes train a network with batch normalization, crops and label noise like one, and resume exactly."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from lnsgd import rng
from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, HessianTrace
from lnsgd.data import CIFAR10
from lnsgd.label_noise import UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.models import ResNet20
from lnsgd.models.sync_batch_norm import SyncBatchNorm
from lnsgd.modules import Classifier
from lnsgd.modules.layer_sync import CPUSyncBatchNorm
from tests.data.cifar_files import write_binary
from tests.modules.test_resume import CheckpointsAt, StopAt

# Of 16 the last batch: with 57 examples 9, shared 5 and 4; with 49 one, of which the second process has nothing.
BATCH = 16
SUBSETS = {"uneven": 57, "empty-share": 49}
EPOCH_STEPS, EPOCHS = 4, 2

# The same numbers summed in another order, after eight steps of a network of 20 layers.
SUMMATION = {"rel": 1e-9, "abs": 1e-10}

# A standard error is the root of a difference of such sums, which has fewer digits.
OF_DIFFERENCES = {"rel": 1e-7, "abs": 1e-10}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Coloured noise of ten classes in CIFAR-10's binary layout."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CIFAR10, "examples_per_file", 13)
        for name in (*CIFAR10.batches["train"], *CIFAR10.batches["test"]):
            images, labels = draw.integers(0, 256, (13, 3072), np.uint8), draw.integers(0, 10, 13).tolist()
            write_binary(folder / "cifar-10-batches-bin", name, images, labels)
        yield folder


class WithDropout(nn.Module):
    """A ResNet-20 whose outputs are dropped at random, and mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet, self.drop, self.out = ResNet20(num_classes=12, width=4), nn.Dropout(0.3), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.drop(self.resnet(x)))


class FewResults(Callback):
    """Lets forked processes end: Lightning's launcher waits for them before it reads what they hand back.

    The numbers of all sites and tensors are more than the 64 KiB that a pipe holds.
    """

    def teardown(self, trainer, pl_module, stage) -> None:
        trainer.callback_metrics.clear()


def all_measures() -> tuple[Callback, ...]:
    return (
        ActiveNeurons(at_steps=[5]),
        ClassAssociation(threshold=1.2, histograms=0, every_n_epochs=2),
        DistanceFromInit(every_n_epochs=2),
        HessianTrace(examples=11, every_n_epochs=2, rtol=0.5, max_overhead=None),
    )


def train(
    folder: Path,
    data_dir: Path,
    devices: int,
    sync: bool = True,
    subset: int = SUBSETS["uneven"],
    dropout: bool = False,
    measures: bool = True,
    callbacks: tuple[Callback, ...] = (),
    checkpoint: Path | None = None,
) -> Classifier:
    with rng.forked(3, "init"):
        net = WithDropout() if dropout else ResNet20(width=4)
    module = Classifier(net, None, UniformNoise(0.4), partial(torch.optim.SGD, lr=0.05, momentum=0.9), seed=4)
    torch.manual_seed(5)  # as a new process; a resumed one must not go on from here
    data = CIFAR10(str(data_dir), batch_size=BATCH, eval_batch_size=9, standardize=True, subset=subset, seed=5)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        sync_batchnorm=sync,
        plugins=[CPUSyncBatchNorm()] if sync else [],
        max_epochs=EPOCHS,
        logger=CSVLogger(str(folder), resume=checkpoint is not None),
        callbacks=[*(all_measures() if measures else ()), FewResults(), *callbacks],
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, CheckpointsAt) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return module


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def logged(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def measured(folder: Path) -> dict[tuple, tuple[float, float]]:
    rows = pq.read_table(folder / "measures.parquet").to_pylist()
    keys = ("step", "epoch", "split", "measure", "layer")
    return {tuple(row[key] for key in keys): (row["value"], row["stderr"]) for row in rows}


def tolerance(of_difference: bool, whole: float) -> dict[str, float]:
    """Return the tolerance of a number that is one part of a whole, and is rounded as the whole is."""
    allowed = OF_DIFFERENCES if of_difference else SUMMATION
    return {"rel": allowed["rel"], "abs": max(allowed["abs"], SUMMATION["rel"] * abs(whole))}


def farthest(ours: nn.Module, theirs: nn.Module) -> float:
    """Largest difference between two networks in an entry of a weight or buffer."""
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


@pytest.mark.parametrize(
    "subset",
    [pytest.param(SUBSETS["uneven"], marks=pytest.mark.slow, id="uneven"), pytest.param(49, id="empty-share")],
)
def test_two_processes_end_like_one(tmp_path, data_dir, float64, subset):
    one, two = (train(tmp_path / str(devices), data_dir, devices, subset=subset) for devices in (1, 2))
    ours = two.net.state_dict()
    for name, expected in one.net.state_dict().items():
        torch.testing.assert_close(ours[name], expected, rtol=SUMMATION["rel"], atol=SUMMATION["abs"], msg=name)
    assert ours["bn1.num_batches_tracked"] == EPOCHS * EPOCH_STEPS

    rows = logged(tmp_path / "1")
    assert [row["step"] for row in rows] == list(range(EPOCHS * EPOCH_STEPS + 1))
    assert {"train/loss", "train/accuracy", "train/flip_rate", "val/loss", "val/accuracy"} <= rows[-1].keys()
    for mine, expected in zip(logged(tmp_path / "2"), rows, strict=True):
        assert list(mine) == list(expected)
        for name, value in expected.items():
            whole = expected.get("hessian_trace/train", 0) if name.startswith("hessian_trace/") else 0
            assert mine[name] == pytest.approx(value, **tolerance(name.endswith("/stderr"), whole)), name

    expected = measured(tmp_path / "1")
    kinds = ("active_count", "active_fraction", "associated_count", "associated_fraction")
    assert {measure for _, _, _, measure, _ in expected} == {*kinds, "distance_from_init", "hessian_trace"}
    found = measured(tmp_path / "2")
    assert list(found) == list(expected)
    for key, (value, stderr) in expected.items():
        whole = expected[*key[:-1], ""][0] if key[3] == "hessian_trace" else 0
        assert found[key][0] == pytest.approx(value, **tolerance(False, whole), nan_ok=True), key
        assert found[key][1] == pytest.approx(stderr, **tolerance(True, whole), nan_ok=True), key


def test_training_differs_without_synchronization(tmp_path, data_dir, float64):
    one, two = (train(tmp_path / str(devices), data_dir, devices, sync=False, measures=False) for devices in (1, 2))
    assert farthest(one.net, two.net) > 0.01


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_dir) -> tuple[Path, Classifier]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train(folder, data_dir, 2, dropout=True)


@pytest.mark.parametrize(
    "stop, kill",
    [pytest.param(2, False, marks=pytest.mark.slow, id="exception"), pytest.param(EPOCH_STEPS + 1, True, id="killed")],
)
def test_two_processes_resume_bit_for_bit(tmp_path, data_dir, undisturbed, stop, kill):
    checkpoints = CheckpointsAt(tmp_path, stop)
    with pytest.raises(ProcessExitedException if kill else ProcessRaisedException, match=r"SIGKILL|StoppedError"):
        train(tmp_path, data_dir, 2, dropout=True, callbacks=(checkpoints, StopAt(stop + 1, kill)))
    saved = tmp_path / "checkpoints" / f"step={stop}.ckpt"
    resumed = train(tmp_path, data_dir, 2, dropout=True, checkpoint=saved)
    folder, module = undisturbed
    for name, value in module.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], value), name
    assert (tmp_path / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()
    assert str(measured(tmp_path)) == str(measured(folder))  # written out, NaN equals NaN


class Kinds(Callback):
    """Leaves in the run's folder how many layers are synchronized in training and after it."""

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        (Path(trainer.default_root_dir) / "in-training").write_text(str(synchronized(pl_module)))

    def teardown(self, trainer, pl_module, stage) -> None:
        trainer.strategy.teardown()  # which comes after callbacks
        (Path(trainer.default_root_dir) / "afterwards").write_text(str(synchronized(pl_module)))


def synchronized(module: nn.Module) -> int:
    return sum(isinstance(layer, SyncBatchNorm) for layer in module.modules())


class Dropped(Callback):
    """Leaves in the run's folder which outputs each process keeps in a step."""

    def on_train_batch_start(self, trainer, pl_module, *args) -> None:
        def note(module, inputs, output) -> None:
            name = f"{trainer.global_step}-{trainer.global_rank}.pt"
            torch.save(output != 0, Path(trainer.default_root_dir) / name)
            hook.remove()

        hook = pl_module.net.drop.register_forward_hook(note)


@pytest.fixture(scope="module")
def watched(tmp_path_factory, data_dir) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    train(folder, data_dir, 2, dropout=True, measures=False, callbacks=(Dropped(), Kinds()))
    return folder


def test_layers_are_synchronized_in_training_only(watched):
    assert [(watched / name).read_text() for name in ("in-training", "afterwards")] == ["19", "0"]


def test_processes_drop_different_units(watched):
    for step in range(EPOCH_STEPS - 1):
        kept = [torch.load(watched / f"{step}-{rank}.pt") for rank in (0, 1)]
        assert kept[0].shape == kept[1].shape == (BATCH // 2, 12)
        assert not torch.equal(kept[0], kept[1])


def test_one_process_continues_with_the_totals_of_two(tmp_path, data_dir, float64):
    with pytest.raises(ProcessRaisedException, match="StoppedError"):
        train(tmp_path, data_dir, 2, measures=False, callbacks=(CheckpointsAt(tmp_path, 2), StopAt(3)))
    train(tmp_path, data_dir, 1, measures=False, checkpoint=tmp_path / "checkpoints" / "step=2.ckpt")
    train(tmp_path / "whole", data_dir, 1, measures=False)
    for mine, expected in zip(logged(tmp_path), logged(tmp_path / "whole"), strict=True):
        assert mine == pytest.approx(expected, **SUMMATION)
