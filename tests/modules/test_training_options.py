"""Precision, memory format and compilation: training and measures agree with a plain float32 run."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from lnsgd import rng
from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, GradientNorm, HessianTrace
from lnsgd.data import InMemory
from lnsgd.label_noise import GaussianNoise, LabelSmoothing, UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, Loss, SquaredLoss
from lnsgd.models import MLP
from lnsgd.models.resnet import CIFARResNet
from lnsgd.modules import Classifier, Regressor, SupervisedModule
from lnsgd.modules.totals import LossTotals

EPOCH_STEPS, STEPS, STOP = 3, 6, 4  # a checkpoint is taken in the middle of the second epoch


class ResNet8(CIFARResNet):
    """One block a stage: the operations of ResNet-20, and a third of its time."""

    blocks = 1


class Convolutional(nn.Module):
    """Small enough to be compiled in a test."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.relu(self.norm(self.conv(x))).mean((2, 3)))


@dataclass(frozen=True)
class Option:
    """A way to train, and how far its numbers may be from those of plain float32.

    Attributes:
        settings: Of the module.
        precision: Of the Trainer.
        net: What is trained.
        rtol: Of losses in the first steps.
        curvature: Of measures by derivatives, at the same weights.
        active: Absolute, of active fractions at the same weights.
    """

    settings: dict[str, object]
    precision: str = "32-true"
    net: type[nn.Module] = ResNet8
    rtol: float = 1e-5
    curvature: float = 1e-4
    active: float = 1e-3


HALF = {"rtol": 0.03, "active": 0.02}
OPTIONS = {
    "channels-last": Option({"channels_last": True}),
    "bf16-mixed": Option({}, "bf16-mixed", **HALF),
    "bf16-true": Option({}, "bf16-true", **HALF, curvature=0.1),  # of the rounded network
    "64-true": Option({}, "64-true"),
    "channels-last-bf16-mixed": Option({"channels_last": True}, "bf16-mixed", **HALF),
    "compiled": Option({"compile_mode": "default"}, net=Convolutional),
    "all": Option({"channels_last": True, "compile_mode": "default"}, "bf16-mixed", Convolutional, **HALF),
}
SLOW = {"compiled"}  # "all" is compiled too
EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in OPTIONS]
)


class Losses(pl.Callback):
    """Keeps the loss of every step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())


@dataclass
class Run:
    """A finished run: losses of its steps, weights and momentum, rows of its two tables, graphs that were compiled."""

    losses: list[float]
    module: Classifier
    momentum: list[torch.Tensor]
    metrics: str
    measures: list[dict]
    graphs: int

    def tensors(self) -> dict[str, torch.Tensor]:
        momentum = {f"momentum {k}": value for k, value in enumerate(self.momentum)}
        return {**self.module.state_dict(), **momentum}

    def measured(self, measure: str, step: int) -> dict[tuple[str, str], float]:
        rows = [row for row in self.measures if row["measure"] == measure and row["step"] == step]
        return {(row["split"], row["layer"]): row["value"] for row in rows}


def data() -> InMemory:
    """40 images: batches of 16, 16 and 8."""
    with rng.forked(0, "data"):
        return InMemory((torch.randn(40, 3, 8, 8), torch.arange(40) % 10), batch_size=16, seed=3)


def trackers() -> list[pl.Callback]:
    """Measure before the first step, after the second, and at the end."""
    schedule, few = {"at_steps": [2]}, {"examples": 8}
    return [
        ActiveNeurons(**few, **schedule),
        ClassAssociation(**few, **schedule, histograms=0),
        DistanceFromInit(**schedule),
        HessianTrace(**few, **schedule, rtol=1e-9, max_overhead=None),  # exact
        GradientNorm(**few, **schedule, max_overhead=None),
    ]


def train(folder: Path, option: Option, callbacks: list[pl.Callback], checkpoint: Path | None = None) -> Run:
    """Train with label noise and new objects."""
    with rng.forked(1 if checkpoint is None else 9, "init"):  # a resumed run must replace its weights
        net = option.net() if option.net is Convolutional else option.net(width=4)
    sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    module = Classifier(net, label_noise=UniformNoise(0.3), optimizer=sgd, **option.settings)
    losses = Losses()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=option.precision,
        max_epochs=STEPS // EPOCH_STEPS,
        logger=CSVLogger(str(folder), resume=checkpoint is not None),
        callbacks=[*callbacks, losses],
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=data(), ckpt_path=checkpoint)
    assert trainer.global_step == STEPS
    measures = folder / "measures.parquet"
    return Run(
        losses.values,
        module,
        [trainer.optimizers[0].state[p]["momentum_buffer"] for p in module.parameters()],
        (folder / "metrics.csv").read_text(),
        pq.read_table(measures).to_pylist() if measures.exists() else [],
        torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs,
    )


FOLDER = TemporaryDirectory()


@cache
def watched(name: str) -> Run:
    """The run with all trackers, which leaves a checkpoint."""
    folder = Path(FOLDER.name) / name
    checkpoints = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=STOP, save_top_k=-1)
    return train(folder, OPTIONS[name], [*trackers(), checkpoints])


@cache
def plain(net: type[nn.Module]) -> Run:
    """The run in float32, with all trackers."""
    return train(Path(FOLDER.name) / net.__name__, Option({}, net=net), trackers())


def assert_same(run: Run, other: Run) -> None:
    ours, theirs = run.tensors(), other.tensors()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name]), name


@EACH
def test_callbacks_change_no_bit(name, tmp_path):
    alone = train(tmp_path, OPTIONS[name], [])
    assert len(set(alone.losses)) == STEPS
    assert alone.losses == watched(name).losses
    assert_same(alone, watched(name))


@EACH
def test_resumed_in_the_middle_of_an_epoch(name, tmp_path):
    expected = watched(name)
    checkpoint = Path(FOLDER.name) / name / f"step={STOP}.ckpt"
    resumed = train(tmp_path, OPTIONS[name], trackers(), checkpoint)
    assert resumed.losses == expected.losses[STOP:]
    assert_same(resumed, expected)
    later = [row for row in expected.metrics.splitlines() if row.split(",")[1] == "1"][STOP - EPOCH_STEPS :]
    assert resumed.metrics.splitlines()[-1].split(",")[:2] == later[-1].split(",")[:2]
    for measure in ("active_fraction", "distance_from_init", "hessian_trace", "gradient_norm"):
        assert resumed.measured(measure, STEPS) == expected.measured(measure, STEPS) != {}


@EACH
def test_measures_agree_with_a_plain_run(name):
    option, run = OPTIONS[name], watched(name)
    expected = plain(option.net)
    for measure in ("hessian_trace", "gradient_norm"):
        assert run.measured(measure, 0) == pytest.approx(expected.measured(measure, 0), rel=option.curvature, abs=1e-4)
    close = pytest.approx(expected.measured("active_fraction", 0), abs=option.active)
    assert run.measured("active_fraction", 0) == close != {}
    # Rounding makes runs part, so that later numbers are near only.
    for step in (2, STEPS):
        distance = run.measured("distance_from_init", step)["", ""]
        assert distance == pytest.approx(expected.measured("distance_from_init", step)["", ""], rel=0.2)
    assert all(torch.isfinite(torch.tensor(row["value"])) for row in run.measures)
    assert {row["step"] for row in run.measures} == {0, 2, STEPS}


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "64-true"])  # which draws noise in float64
def test_losses_agree_with_a_plain_run(name):
    option = OPTIONS[name]
    assert watched(name).losses[:2] == pytest.approx(plain(option.net).losses[:2], rel=option.rtol)


@EACH
def test_names_and_types_of_weights(name):
    option, run = OPTIONS[name], watched(name)
    assert list(run.module.state_dict()) == list(plain(option.net).module.state_dict())
    assert len(list(run.module.parameters())) == len(list(plain(option.net).module.parameters()))
    kind = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(option.precision, torch.float32)
    assert {p.dtype for p in run.module.parameters()} == {kind}
    laid_out = [p.is_contiguous(memory_format=torch.channels_last) for p in run.module.parameters() if p.ndim == 4]
    assert any(not p.is_contiguous() for p in run.module.parameters()) == bool(option.settings.get("channels_last"))
    assert all(laid_out) or not option.settings.get("channels_last")


@EACH
def test_only_the_training_forward_is_compiled_once_for_each_size_of_a_batch(name):
    assert watched(name).graphs == (2 if "compile_mode" in OPTIONS[name].settings else 0)


def test_convolutions_get_images_in_the_memory_format():
    module, seen = Classifier(ResNet8(width=4), channels_last=True), []
    module.net.layer2[0].conv2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    inputs = torch.randn(2, 3, 16, 16)
    outputs = module(inputs)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    module.net.to(memory_format=torch.contiguous_format)
    module.channels_last = False
    torch.testing.assert_close(outputs, module(inputs), rtol=1e-4, atol=1e-5)


class Spy(Loss):
    """A loss that notes in what precision it is computed."""

    accepts = frozenset({"hard", "soft", "real"})

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def __call__(self, outputs, targets):
        assert not torch.is_autocast_enabled("cpu")
        losses = self.loss(outputs, targets)
        self.seen.append((outputs.detach(), targets.detach(), losses.detach()))
        return losses


SMOOTH, GAUSSIAN, UNIFORM = LabelSmoothing(0.3), GaussianNoise(0.3), UniformNoise(0.3)
LOSSES = {
    "logistic-hard": (LogisticLoss(), UNIFORM),
    "logistic-soft": (LogisticLoss(), SMOOTH),
    "softmax-hard": (CrossEntropy(), UNIFORM),
    "softmax-soft": (CrossEntropy(), SMOOTH),
    "hinge-hard": (HingeLoss(), UNIFORM),
    "squared-soft": (SquaredLoss(), SMOOTH),
    "squared-real": (SquaredLoss(), GAUSSIAN),
}


def one_epoch(precision: str, module: SupervisedModule, data: pl.LightningDataModule) -> None:
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    once = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    pl.Trainer(accelerator="cpu", precision=precision, **once, **silent).fit(module, datamodule=data)


def seen_of(loss: Loss, noise: object, precision: str) -> list[tuple[torch.Tensor, ...]]:
    with rng.forked(0, "init"):
        module = Classifier(MLP([12, 8, 3]), Spy(loss), noise)
    with rng.forked(0, "data"):
        inputs = torch.randn(40, 12)
    one_epoch(precision, module, InMemory((inputs, torch.arange(40) % 3), batch_size=20))
    return module.loss.seen


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_and_targets_are_computed_in_single_precision(kind, precision):
    loss, noise = LOSSES[kind]
    seen, expected = seen_of(loss, noise, precision), seen_of(loss, noise, "32-true")
    assert len(seen) == 3  # two steps and a validation
    for (outputs, targets, losses), (_, exact_targets, _) in zip(seen, expected, strict=True):
        assert outputs.dtype == losses.dtype == torch.float32
        torch.testing.assert_close(targets, exact_targets, rtol=0, atol=0)  # the same noise, not rounded
        exact = loss(outputs.double(), targets.double() if targets.is_floating_point() else targets)
        torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-5)


def test_regression_in_half_precision():
    with rng.forked(0, "data"):
        inputs, targets = torch.randn(40, 5), torch.randn(40, 1)
    module = Regressor(MLP([5, 8, 1]), Spy(SquaredLoss()), GaussianNoise(0.1))
    one_epoch("bf16-true", module, InMemory((inputs, targets), batch_size=20))
    assert {t.dtype for row in module.loss.seen[:2] for t in row} == {torch.float32}


def test_totals_stay_in_double_precision():
    totals = LossTotals()
    totals.update(torch.tensor([1.0, 2.0**-20]))
    exact = 1 + 2.0**-20
    for kept in (nn.ModuleList([totals]).to(torch.bfloat16)[0], totals.half(), totals.float()):
        assert kept.loss.dtype == kept._defaults["loss"].dtype == torch.float64
        assert kept.compute()["loss"] * 2 == exact
    assert totals.to("meta").loss.device.type == "meta"
