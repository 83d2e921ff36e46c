"""Training under Lightning, against plain PyTorch loops."""

import csv
from dataclasses import dataclass, field
from functools import partial
from math import sqrt
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from tolerances import EXACT, STANDARD_ERRORS
from torch.utils.data import DataLoader, TensorDataset

from lnsgd import rng
from lnsgd.data import MNIST
from lnsgd.label_noise import GaussianNoise, LabelSmoothing, NoNoise, UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from tests.reference.streams import gaussian_noise, places, uniform_targets

DATA_SEED, NOISE_SEED = 5, 6
BATCH, N = 30, 100  # four batches an epoch, the last of ten


@pytest.fixture(autouse=True)
def float64():
    """Use float64, so that equal mathematics gives equal numbers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(*widths: int) -> MLP:
    with rng.forked(1, "init"):
        return MLP(widths)


def mnist(**options) -> MNIST:
    settings = {"subset": N, "val_size": 50, "batch_size": BATCH, "seed": DATA_SEED, **options}
    return MNIST(source="sample", **settings)


def trainer(folder: Path, **options) -> pl.Trainer:
    settings = {"max_epochs": 1, "enable_checkpointing": False, **options}
    return pl.Trainer(
        accelerator="cpu",
        logger=CSVLogger(str(folder)),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Return the rows of metrics.csv by step, without empty fields."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return {int(row.pop("step")): row for row in rows}


# --- whole runs ---


def logistic(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Σ_c log(1 + exp(−y_c o_c)), of each example."""
    signs = torch.full_like(outputs, -1)
    signs[torch.arange(len(labels)), labels] = 1
    return torch.log1p(torch.exp(-signs * outputs)).sum(1)


@dataclass
class PlainRun:
    """SGD with label noise on the logistic loss, written out, and what is to be logged of it."""

    lr: float
    momentum: float
    p: float
    decay: float  # of the learning rate after each epoch
    rows: list[dict[str, float]] = field(default_factory=list)
    batch_losses: list[float] = field(default_factory=list)

    def train(self, net: MLP, data: MNIST, epochs: int) -> None:
        images = data.transform(data.splits["train"].inputs)
        labels = data.splits["train"].labels
        velocity = [torch.zeros_like(w) for w in net.parameters()]
        seen = 0
        for epoch in range(epochs):
            losses, correct, flipped = 0.0, 0, 0
            for chosen in places(epoch * N, N, N, "shuffle", DATA_SEED).split(BATCH):
                noisy = uniform_targets(labels[chosen], self.p, 10, NOISE_SEED, seen)
                seen += len(chosen)
                outputs = net(images[chosen])
                loss = logistic(outputs, noisy)
                for w, v, g in zip(net.parameters(), velocity, torch.autograd.grad(loss.mean(), [*net.parameters()])):
                    v.mul_(self.momentum).add_(g)
                    w.data -= self.lr * self.decay**epoch * v
                self.batch_losses.append(loss.mean().item())
                losses += loss.sum().item()
                correct += (outputs.argmax(1) == labels[chosen]).sum().item()
                flipped += (noisy != labels[chosen]).sum().item()
            named = {"train/loss": losses / N, "train/accuracy": correct / N, "train/flip_rate": flipped / N}
            self.rows.append({**named, **self.evaluate(net, data, "val")})

    def evaluate(self, net: MLP, data: MNIST, split: str) -> dict[str, float]:
        """Loss and accuracy on the clean labels."""
        labels = data.splits[split].labels
        with torch.no_grad():
            outputs = net(data.transform(data.splits[split].inputs))
        accuracy = (outputs.argmax(1) == labels).double().mean().item()
        return {f"{split}/loss": logistic(outputs, labels).mean().item(), f"{split}/accuracy": accuracy}


RUNS = {
    "no-noise": {"p": 0.0},
    "noise": {"p": 0.4},
    "noise-momentum": {"p": 0.4, "momentum": 0.9},
    "noise-schedule": {"p": 0.4, "decay": 0.5},
    "pure-noise": {"p": 1.0},
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_run_equals_a_plain_loop(tmp_path, options):
    plain = PlainRun(**{"lr": 0.05, "momentum": 0.0, "decay": 1.0, **options})
    data, epochs, steps = mnist(val_size=300, eval_batch_size=170), 3, 12
    module = Classifier(
        network(784, 12, 10),
        LogisticLoss(),
        UniformNoise(plain.p),
        optimizer=partial(torch.optim.SGD, lr=plain.lr, momentum=plain.momentum),
        lr_scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=plain.decay),
        seed=NOISE_SEED,
    )
    runner = trainer(tmp_path, max_epochs=epochs, log_every_n_steps=1)
    runner.fit(module, datamodule=data)
    rows = metrics(tmp_path)
    runner.test(module, datamodule=data, verbose=False)

    net = network(784, 12, 10)
    plain.train(net, data, epochs)
    for ours, theirs in zip(module.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)

    assert list(rows) == list(range(1, steps + 1))
    assert [row["train/batch_loss"] for row in rows.values()] == pytest.approx(plain.batch_losses, rel=1e-10)
    for epoch, expected in enumerate(plain.rows):
        row = rows[4 * (epoch + 1)]
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-10)
        assert row["epoch"] == epoch
    assert all(set(row) == {"epoch", "train/batch_loss"} for step, row in rows.items() if step % 4)
    expected = plain.evaluate(net, data, "test")
    tested = metrics(tmp_path)[steps]
    assert {name: tested[name] for name in expected} == pytest.approx(expected, rel=1e-10)


def test_testing_leaves_what_training_logged_alone(tmp_path):
    module, data, runner = Classifier(network(784, 10)), mnist(), trainer(tmp_path, max_epochs=2)
    runner.fit(module, datamodule=data)
    trained = metrics(tmp_path)
    runner.test(module, datamodule=data, verbose=False)
    tested = metrics(tmp_path)
    assert list(tested) == list(trained)
    for step, row in trained.items():
        assert {name: tested[step][name] for name in row} == row


def test_without_a_schedule_the_learning_rate_is_constant(tmp_path):
    module = Classifier(network(784, 10), optimizer=partial(torch.optim.SGD, lr=0.3))
    runner = trainer(tmp_path, max_epochs=2)
    runner.fit(module, datamodule=mnist())
    assert runner.optimizers[0].param_groups[0]["lr"] == 0.3


STEPPED = {"epoch": [1.0] * 4 + [0.1] * 8 + [0.01] * 4, "step": [1.0] + [0.1] * 2 + [0.01] * 13}


@pytest.mark.parametrize("interval", STEPPED)
def test_the_schedule_is_stepped_per_interval(tmp_path, interval):
    seen: list[float] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, *args):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = Classifier(
        network(784, 10),
        optimizer=partial(torch.optim.SGD, lr=1.0),
        lr_scheduler=partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 3], gamma=0.1),
        lr_scheduler_interval=interval,
    )
    trainer(tmp_path, max_epochs=4, callbacks=[Watch()]).fit(module, datamodule=mnist())
    assert seen == pytest.approx(STEPPED[interval])


def test_the_batch_loss_is_logged_every_n_steps(tmp_path):
    trainer(tmp_path, max_epochs=3, log_every_n_steps=5).fit(Classifier(network(784, 10)), datamodule=mnist())
    assert [step for step, row in metrics(tmp_path).items() if "train/batch_loss" in row] == [5, 10]


def test_only_layers_that_are_not_frozen_are_trained(tmp_path):
    with rng.forked(1, "init"):
        net = MLP([784, 12, 10], train_layers=[1])
    trainer(tmp_path).fit(Classifier(net), datamodule=mnist())
    moved = [not torch.equal(ours, start) for ours, start in zip(net.parameters(), network(784, 12, 10).parameters())]
    assert moved == [False, False, True, True]


# --- noise ---


class RecordedNoise(UniformNoise):
    """Keeps which labels were changed at each step."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.flips: list[torch.Tensor] = []

    def apply(self, labels, noise, num_classes=None):
        targets = super().apply(labels, noise, num_classes)
        self.flips.append(targets != labels)
        return targets


def flips_of_a_run(folder: Path, p: float, seed: int, epochs: int = 2) -> list[torch.Tensor]:
    noise = RecordedNoise(p)
    module = Classifier(network(784, 10), label_noise=noise, seed=seed)
    trainer(folder, max_epochs=epochs).fit(module, datamodule=mnist(subset=900, batch_size=300))
    assert len(noise.flips) == 3 * epochs  # validation has no noise
    return noise.flips


def test_noise_is_fresh_at_each_step_and_keyed_by_the_seed(tmp_path):
    q = 0.5 * 0.9
    agreement = q**2 + (1 - q) ** 2  # of two independent sets of flips
    steps = flips_of_a_run(tmp_path, 0.5, seed=1) + flips_of_a_run(tmp_path, 0.5, seed=2)
    for i, first in enumerate(steps):
        for second in steps[:i]:
            share = (first == second).double().mean().item()
            assert abs(share - agreement) < STANDARD_ERRORS * sqrt(agreement * (1 - agreement) / 300)
    again = flips_of_a_run(tmp_path, 0.5, seed=1)
    assert all(torch.equal(first, second) for first, second in zip(steps, again))


@pytest.mark.parametrize("classes", [None, (3, 8)], ids=["10-classes", "2-classes"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_flip_rate_is_the_realized_rate(tmp_path, p, classes):
    data = mnist(subset=900, batch_size=300, classes=classes)
    trainer(tmp_path, max_epochs=4).fit(
        Classifier(network(784, data.num_classes), label_noise=UniformNoise(p)), datamodule=data
    )
    rates = [row["train/flip_rate"] for row in metrics(tmp_path).values() if "train/flip_rate" in row]
    expected = p * (data.num_classes - 1) / data.num_classes
    assert len(rates) == 4
    error = sqrt(expected * (1 - expected) / 3600)
    assert abs(sum(rates) / 4 - expected) <= STANDARD_ERRORS * error


def test_flip_rate_falls_to_zero_when_the_noise_ends(tmp_path):
    data = mnist(subset=900, batch_size=300)
    module = Classifier(network(784, 10), label_noise=UniformNoise(1.0), noise_steps=4)
    trainer(tmp_path, max_epochs=3).fit(module, datamodule=data)
    first, second, third = [row["train/flip_rate"] for row in metrics(tmp_path).values() if "train/flip_rate" in row]
    assert first > 0.8
    assert 0.2 < second < 1 / 3  # one batch of three
    assert third == 0


@pytest.mark.parametrize(
    ("noise", "noise_steps", "message"),
    [
        (UniformNoise(0.1), -1, "noise_steps = -1; give 0 or more"),
        (None, 5, r"noise_steps = 5 ends at .* NoNoise has no level"),
    ],
    ids=["negative", "no-level"],
)
def test_noise_steps_are_refused(noise, noise_steps, message):
    with pytest.raises(ValueError, match=message):
        Classifier(network(784, 10), label_noise=noise, noise_steps=noise_steps)


@pytest.mark.parametrize(
    ("noise", "loss"),
    [(LabelSmoothing(0.2), CrossEntropy()), (GaussianNoise(0.1), SquaredLoss())],
    ids=["soft", "real"],
)
def test_only_hard_noise_has_a_flip_rate(tmp_path, noise, loss):
    trainer(tmp_path).fit(Classifier(network(784, 10), loss, noise), datamodule=mnist())
    row = metrics(tmp_path)[4]
    assert {"train/loss", "train/accuracy"} <= set(row)
    assert "train/flip_rate" not in row


# --- one step of every kind ---


def smoothed(labels: torch.Tensor, p: float, classes: int) -> torch.Tensor:
    return (1 - p) * F.one_hot(labels, classes).double() + p / classes


def with_gaussian_noise(labels: torch.Tensor, classes: int, std: float) -> torch.Tensor:
    return F.one_hot(labels, classes) + gaussian_noise(std, (classes,), NOISE_SEED, 0, len(labels))


def hinge(outputs, labels):
    noisy, total = uniform_targets(labels, 0.3, 10, NOISE_SEED, 0), 0
    for c in range(10):
        sign = torch.where(noisy == c, 1.0, -1.0)
        total = total + torch.clamp(0.5 - sign * outputs[:, c], min=0)
    return total.mean()


def smoothed_cross_entropy(outputs, labels):
    return F.cross_entropy(outputs, labels, label_smoothing=0.2)


def smoothed_logistic(outputs, labels):
    q = smoothed(labels, 0.2, 10)
    return (q * F.softplus(-outputs) + (1 - q) * F.softplus(outputs)).sum(1).mean()


def gaussian_mean_square(outputs, labels):
    return F.mse_loss(outputs, with_gaussian_noise(labels, 10, 0.5))


def gaussian_two_outputs(outputs, labels):
    return (outputs - with_gaussian_noise(labels, 2, 0.5)).square().sum() / len(labels)


def one_output_logistic(outputs, labels):
    return F.soft_margin_loss(outputs[:, 0], 2.0 * uniform_targets(labels, 0.3, 2, NOISE_SEED, 0) - 1)


def one_output_square(outputs, labels):
    return F.mse_loss(outputs[:, 0], 2 * smoothed(labels, 0.2, 2)[:, 1] - 1)


def one_output_hinge(outputs, labels):
    return torch.clamp(1 - (2 * labels - 1) * outputs[:, 0], min=0).mean()


TWO = (0, 1)
KINDS = [  # outputs, classes, loss, noise, the mean loss that is differentiated
    (10, None, HingeLoss(beta=0.5), UniformNoise(0.3), hinge),
    (10, None, CrossEntropy(), LabelSmoothing(0.2), smoothed_cross_entropy),
    (10, None, LogisticLoss(), LabelSmoothing(0.2), smoothed_logistic),
    (10, None, SquaredLoss(), GaussianNoise(0.5), gaussian_mean_square),
    (2, TWO, SquaredLoss("sum"), GaussianNoise(0.5), gaussian_two_outputs),
    (1, TWO, LogisticLoss(), UniformNoise(0.3), one_output_logistic),
    (1, TWO, SquaredLoss(), LabelSmoothing(0.2), one_output_square),
    (1, TWO, HingeLoss(), NoNoise(), one_output_hinge),
]


@pytest.mark.parametrize(
    ("outputs", "classes", "loss", "noise", "reference"), KINDS, ids=[kind[-1].__name__ for kind in KINDS]
)
def test_one_step_follows_the_gradient(tmp_path, outputs, classes, loss, noise, reference):
    module = Classifier(network(784, 6, outputs), loss, noise, partial(torch.optim.SGD, lr=0.1), seed=NOISE_SEED)
    data = mnist(classes=classes, batch_size=N)
    trainer(tmp_path).fit(module, datamodule=data)

    net = network(784, 6, outputs)
    train = data.splits["train"]  # a full batch is in the order of the data, and so is its noise
    scores = net(data.transform(train.inputs))
    mean = reference(scores, train.labels)
    for ours, start, slope in zip(
        module.net.parameters(), net.parameters(), torch.autograd.grad(mean, [*net.parameters()])
    ):
        assert slope.abs().max() > 1e-6
        torch.testing.assert_close(ours, start - 0.1 * slope, **EXACT)

    row = metrics(tmp_path)[1]
    predicted = scores.argmax(1) if outputs > 1 else (scores[:, 0] > 0).long()
    assert row["train/accuracy"] == (predicted == train.labels).double().mean()
    assert row["train/loss"] == pytest.approx(mean.item(), rel=1e-10)


# --- other people's data ---


def test_plain_batches_train_like_batches_of_the_data_module(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(70, 5, generator=generator), torch.randint(3, (70,), generator=generator)
    dataset = TensorDataset(images, labels)
    module = Classifier(network(5, 3), CrossEntropy(), UniformNoise(0.5), seed=NOISE_SEED)
    runner = trainer(tmp_path, max_epochs=2, limit_val_batches=2)
    runner.fit(module, DataLoader(dataset, batch_size=30), DataLoader(dataset, batch_size=35))

    net = network(5, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(2):
        for chosen in torch.arange(70).split(30):
            noisy = uniform_targets(labels[chosen], 0.5, 3, NOISE_SEED, 70 * epoch + chosen[0].item())
            optimizer.zero_grad()
            F.cross_entropy(net(images[chosen]), noisy).backward()
            optimizer.step()
    for ours, theirs in zip(module.net.parameters(), net.parameters()):
        torch.testing.assert_close(ours, theirs, **EXACT)
    expected = F.cross_entropy(net(images), labels).item()
    assert metrics(tmp_path)[6]["val/loss"] == pytest.approx(expected, rel=1e-10)


# --- what does not go together ---


@pytest.mark.parametrize(
    ("loss", "noise"),
    [
        (HingeLoss(), LabelSmoothing(0.1)),
        (HingeLoss(), GaussianNoise(0.1)),
        (LogisticLoss(), GaussianNoise(0.1)),
        (CrossEntropy(), GaussianNoise(0.1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_loss_refuses_undefined_targets(loss, noise):
    with pytest.raises(ValueError, match=f"{type(loss).__name__} takes .* but {type(noise).__name__} gives"):
        Classifier(network(5, 3), loss, noise)


@pytest.mark.parametrize(
    ("loss", "noise", "message"),
    [
        (SquaredLoss(), GaussianNoise(0.1), "real noise on a single output"),
        (CrossEntropy(), NoNoise(), "CrossEntropy needs one output per class"),
    ],
    ids=["real-noise", "cross-entropy"],
)
def test_a_single_output_refuses_real_noise(tmp_path, loss, noise, message):
    module = Classifier(network(784, 1), loss, noise)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(module, datamodule=mnist(classes=TWO))
