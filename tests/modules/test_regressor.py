"""Regression with label noise under Lightning, against plain loops."""

import csv
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from tolerances import EXACT

from lnsgd import rng
from lnsgd.data import InMemory
from lnsgd.label_noise import GaussianNoise, LabelNoise, LabelSmoothing, NoNoise, UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, Loss, SquaredLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier, Regressor
from tests.reference.streams import gaussian_noise, places

DATA_SEED, NOISE_SEED = 5, 6
N, STD, LR = 20, 0.5, 0.02


@pytest.fixture(autouse=True)
def float64():
    """Use float64, so that equal mathematics gives equal numbers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(outputs: int = 1) -> MLP:
    with rng.forked(1, "init"):
        return MLP([3, 8, outputs])


def points(n: int = N, outputs: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator), torch.randn(n, outputs, generator=generator)


def data_of(outputs: int = 1, **options) -> InMemory:
    splits = points(N, outputs), points(7, outputs, seed=1), points(9, outputs, seed=2)
    return InMemory(*splits, seed=DATA_SEED, eval_batch_size=4, **options)


def trainer(folder: Path, **options) -> pl.Trainer:
    settings = {"max_epochs": 3, "enable_checkpointing": False, "log_every_n_steps": 1, **options}
    return pl.Trainer(
        accelerator="cpu",
        logger=CSVLogger(str(folder), resume=settings.pop("resume", False)),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def regressor(outputs: int = 1, loss: Loss | None = None, noise: LabelNoise | None = None, **options) -> Regressor:
    sgd = partial(torch.optim.SGD, lr=LR, momentum=options.pop("momentum", 0.0))
    return Regressor(network(outputs), loss, noise or GaussianNoise(STD), sgd, seed=NOISE_SEED, **options)


def metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Return the rows of metrics.csv by step, without empty fields."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return {int(row.pop("step")): row for row in rows}


# --- whole runs ---


def squared(outputs: torch.Tensor, targets: torch.Tensor, reduction: str) -> torch.Tensor:
    """Of each example: over its outputs, the sum or the mean."""
    total = sum((outputs[:, k] - targets[:, k]) ** 2 for k in range(outputs.shape[1]))
    return total if reduction == "sum" else total / outputs.shape[1]


RUNS = {  # batch size, order, outputs, reduction, momentum, std, steps with noise
    "batch-one-with-replacement": (1, "replacement", 1, "sum", 0.0, STD, None),
    "batch-one-two-outputs": (1, "replacement", 2, "mean", 0.0, STD, None),
    "full-batch": (None, "sequential", 1, "mean", 0.0, STD, None),
    "full-batch-momentum": (None, "sequential", 2, "sum", 0.5, STD, None),
    "full-batch-with-replacement": (None, "replacement", 1, "mean", 0.0, STD, None),
    "uneven-batches-shuffled": (6, "shuffle", 2, "sum", 0.5, STD, None),
    "without-noise": (6, "shuffle", 1, "mean", 0.0, 0.0, None),
    "noise-that-ends": (6, "shuffle", 2, "sum", 0.5, STD, 5),
    "noise-that-never-starts": (6, "shuffle", 1, "sum", 0.0, STD, 0),
    "noise-that-ends-batch-one": (1, "replacement", 1, "sum", 0.0, STD, 20),
}


@pytest.mark.parametrize(
    ("batch_size", "order", "outputs", "reduction", "momentum", "std", "noise_steps"), RUNS.values(), ids=list(RUNS)
)
def test_a_run_equals_a_plain_loop(tmp_path, batch_size, order, outputs, reduction, momentum, std, noise_steps):
    label_noise = GaussianNoise(std) if std else NoNoise()
    module = regressor(outputs, SquaredLoss(reduction), label_noise, momentum=momentum, noise_steps=noise_steps)
    data = data_of(outputs, batch_size=batch_size, replacement=order == "replacement")
    runner = trainer(tmp_path)
    runner.fit(module, datamodule=data)
    rows = metrics(tmp_path)
    runner.test(module, datamodule=data, verbose=False)

    net, (inputs, targets) = network(outputs), points(N, outputs)
    weights = list(net.parameters())
    velocity = [torch.zeros_like(w) for w in weights]
    batch_losses, epoch_losses, val_losses, seen = [], [], [], 0
    val_inputs, val_targets = points(7, outputs, seed=1)
    for epoch in range(3):
        total = 0.0
        for chosen in places(epoch * N, N, N, order, DATA_SEED).split(batch_size or N):
            level = 0.0 if noise_steps is not None and len(batch_losses) >= noise_steps else std
            noise = gaussian_noise(level, (outputs,), NOISE_SEED, seen, len(chosen))
            seen += len(chosen)
            losses = squared(net(inputs[chosen]), targets[chosen] + noise, reduction)
            for w, v, g in zip(weights, velocity, torch.autograd.grad(losses.mean(), weights)):
                v.mul_(momentum).add_(g)
                w.data -= LR * v
            batch_losses.append(losses.mean().item())
            total += losses.sum().item()
        epoch_losses.append(total / N)
        val_losses.append(squared(net(val_inputs), val_targets, reduction).mean().item())

    for ours, theirs, start in zip(module.net.parameters(), weights, network(outputs).parameters(), strict=True):
        assert not torch.equal(theirs, start)
        torch.testing.assert_close(ours, theirs, **EXACT)
    steps_an_epoch = len(batch_losses) // 3
    assert [row["train/batch_loss"] for row in rows.values()] == pytest.approx(batch_losses, rel=1e-10)
    ends = [rows[steps_an_epoch * (epoch + 1)] for epoch in range(3)]
    assert [row["train/loss"] for row in ends] == pytest.approx(epoch_losses, rel=1e-10)
    assert [row["val/loss"] for row in ends] == pytest.approx(val_losses, rel=1e-10)
    assert set(ends[-1]) == {"epoch", "train/batch_loss", "train/loss", "val/loss"}
    test_inputs, test_targets = points(9, outputs, seed=2)
    expected = squared(net(test_inputs), test_targets, reduction).mean().item()
    assert metrics(tmp_path)[len(batch_losses)]["test/loss"] == pytest.approx(expected, rel=1e-10)


def test_noise_continues_in_the_next_block(tmp_path):
    """17,000 examples of a full batch are more than one block of noise."""
    n = 17_000
    inputs, targets = torch.ones(n, 3), torch.zeros(n, 1)
    module = Regressor(network(), SquaredLoss(), GaussianNoise(STD), partial(torch.optim.SGD, lr=LR), seed=NOISE_SEED)
    small = points(4)
    trainer(tmp_path, max_epochs=2).fit(module, datamodule=InMemory((inputs, targets), small))
    blocks = [STD * torch.randn(16384, 1, generator=rng.generator(NOISE_SEED, "noise", block)) for block in range(3)]
    net, noise = network(), torch.cat(blocks)
    for step in range(2):
        loss = (net(inputs) - noise[step * n : (step + 1) * n]).square().mean()
        for w, g in zip(net.parameters(), torch.autograd.grad(loss, [*net.parameters()])):
            w.data -= LR * g
    for ours, theirs in zip(module.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_the_seed_keys_the_noise(tmp_path):
    ends = []
    for seed in (1, 1, 2):
        module = Regressor(network(), label_noise=GaussianNoise(STD), seed=seed)
        trainer(tmp_path / str(len(ends))).fit(module, datamodule=data_of(batch_size=1, replacement=True))
        ends.append(torch.cat([w.detach().flatten() for w in module.net.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


# --- schedules ---

STEPPED = {"epoch": [1.0] * 2 + [0.1] * 4 + [0.01] * 2, "step": [1.0] + [0.1] * 2 + [0.01] * 5}


@pytest.mark.parametrize("interval", STEPPED)
def test_the_schedule_is_stepped_per_interval(tmp_path, interval):
    seen: list[float] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, *args):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = regressor(
        lr_scheduler=partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 3], gamma=0.1),
        lr_scheduler_interval=interval,
    )
    trainer(tmp_path, max_epochs=4, callbacks=[Watch()]).fit(module, datamodule=data_of(batch_size=10))
    assert seen == pytest.approx([LR * factor for factor in STEPPED[interval]])


# --- resume ---


class StoppedError(Exception):
    """Raised in the middle of training."""


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            raise StoppedError


def fit(
    folder: Path,
    batch_size: int | None,
    checkpoint: Path | None = None,
    *callbacks: Callback,
    noise_steps: int | None = None,
) -> Regressor:
    """Train with new objects; a resumed run starts from other weights, which the checkpoint replaces."""
    module = regressor(
        momentum=0.9,
        lr_scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9),
        lr_scheduler_interval="step",
        noise_steps=noise_steps,
    )
    if checkpoint is not None:
        for weight in module.net.parameters():
            weight.data.zero_()
    runner = trainer(
        folder, callbacks=list(callbacks), enable_checkpointing=bool(callbacks), resume=checkpoint is not None
    )
    runner.fit(module, datamodule=data_of(batch_size=batch_size, replacement=batch_size == 1), ckpt_path=checkpoint)
    return module


@pytest.mark.parametrize("noise_steps", [None, 4], ids=["noise", "noise-that-ends"])
@pytest.mark.parametrize(
    ("batch_size", "stop"),
    [(1, 1), (1, 19), (1, 20), (1, 33), (6, 3), (6, 4), (6, 9), (None, 1), (None, 2)],
)
def test_resumed_bit_for_bit(tmp_path, batch_size, stop, noise_steps):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    expected = fit(whole, batch_size, noise_steps=noise_steps)
    keep = ModelCheckpoint(stopped, filename="{step}", every_n_train_steps=stop, save_top_k=-1)
    with pytest.raises(StoppedError):
        fit(stopped, batch_size, None, keep, StopAt(stop + 1), noise_steps=noise_steps)
    resumed = fit(stopped, batch_size, stopped / f"step={stop}.ckpt", noise_steps=noise_steps)
    for ours, theirs in zip(resumed.net.parameters(), expected.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (stopped / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


# --- several processes ---


@pytest.mark.parametrize(
    ("batch_size", "noise_steps"), [(6, None), (1, None), (6, 5)], ids=["uneven", "one-process-idle", "noise-that-ends"]
)
def test_two_processes_end_like_one(tmp_path, batch_size, noise_steps):
    ends = []
    for devices, strategy in ((1, "auto"), (2, "ddp_fork")):
        module = regressor(outputs=2, momentum=0.9, noise_steps=noise_steps)
        runner = trainer(tmp_path / str(devices), devices=devices, strategy=strategy, max_epochs=2)
        runner.fit(module, datamodule=data_of(2, batch_size=batch_size, replacement=True))
        ends.append((module, metrics(tmp_path / str(devices))))
    (one, rows_of_one), (two, rows_of_two) = ends
    for ours, theirs in zip(two.net.parameters(), one.net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert rows_of_one.keys() == rows_of_two.keys()
    for step, row in rows_of_one.items():
        assert rows_of_two[step] == pytest.approx(row, rel=1e-9, abs=1e-11)


# --- what does not go together ---


class AbsoluteLoss(Loss):
    """A user's loss for real targets only."""

    accepts: ClassVar = frozenset({"real"})

    def __call__(self, outputs, targets):
        return (outputs - targets).abs().sum(-1)


@pytest.mark.parametrize("noise", [None, NoNoise(), GaussianNoise(STD)], ids=["default", "none", "gaussian"])
def test_a_loss_for_real_targets_only_is_accepted(tmp_path, noise):
    module = Regressor(network(), AbsoluteLoss(), noise)
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=data_of())
    (inputs, targets) = points(7, seed=1)
    assert metrics(tmp_path)[1]["val/loss"] == pytest.approx((module(inputs) - targets).abs().mean().item(), rel=1e-10)


@pytest.mark.parametrize("loss", [CrossEntropy(), LogisticLoss(), HingeLoss()], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("noise", [NoNoise(), GaussianNoise(STD)], ids=lambda noise: type(noise).__name__)
def test_a_loss_of_classes_is_refused(loss, noise):
    name = type(loss).__name__
    with pytest.raises(ValueError, match=f"Regressor: {name} is not defined for real targets; use SquaredLoss"):
        Regressor(network(), loss, noise)


@pytest.mark.parametrize("noise", [UniformNoise(0.1), LabelSmoothing(0.1)], ids=lambda noise: type(noise).__name__)
def test_noise_of_classes_is_refused(noise):
    name = type(noise).__name__
    with pytest.raises(ValueError, match=f"Regressor: {name} is not defined for real targets; use GaussianNoise"):
        Regressor(network(), label_noise=noise)


def test_class_labels_are_refused(tmp_path):
    data = InMemory((points()[0], torch.arange(N) % 2))
    with pytest.raises(ValueError, match="Regressor takes real targets, the data has class labels; use Classifier"):
        trainer(tmp_path).fit(regressor(2), datamodule=data)


def test_a_classifier_refuses_real_targets(tmp_path):
    with pytest.raises(ValueError, match="Classifier takes class labels, the data has real targets; use Regressor"):
        trainer(tmp_path).fit(Classifier(network(2)), datamodule=data_of(2))


@pytest.mark.parametrize(
    ("targets", "shape"), [(torch.zeros(N), r"\(\)"), (torch.zeros(N, 2), r"\(2,\)")], ids=["no-axis", "another-width"]
)
def test_targets_of_another_shape_are_refused(tmp_path, targets, shape):
    data = InMemory((points()[0], targets))
    message = rf"targets of shape {shape} an example for outputs of shape \(1,\); give targets \(n, 1\)$"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(regressor(), datamodule=data)
