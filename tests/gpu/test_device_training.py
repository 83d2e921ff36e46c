"""Training under the Trainer on every device, in every precision and compile mode, against a plain loop on the CPU.

The batch is the whole training set, so the order of the examples changes sums only.
"""

from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lnsgd import rng
from lnsgd.data import InMemory
from lnsgd.label_noise import NoNoise, UniformNoise
from lnsgd.losses import CrossEntropy
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.replicas import Replica, ReplicatedData, ReplicatedModule
from lnsgd.streams import NoiseStream

STEPS, LR, MOMENTUM = 6, 0.1, 0.9

# Largest difference of a weight from that of the loop in float64: rounding grows over the steps.
PRECISIONS = {"64-true": 1e-10, "32-true": 1e-4, "bf16-mixed": 2e-2, "bf16-true": 5e-2}


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(40, 6, generator=generator), torch.randint(3, (40,), generator=generator)


def mlp() -> nn.Module:
    torch.manual_seed(1)
    return MLP([6, 16, 3])


def convolutional() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )


def fit(module: pl.LightningModule, data: Any, device: torch.device, **options: Any) -> pl.Trainer:
    settings = {"max_epochs": STEPS, "enable_checkpointing": False, **options}
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator=accelerator, devices=1, **silent, **settings)
    trainer.fit(module, datamodule=data)
    return trainer


def classifier(net: nn.Module, **options: Any) -> Classifier:
    sgd = partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM)
    return Classifier(net, CrossEntropy(), options.pop("label_noise", NoNoise()), sgd, **options)


def loop(net: nn.Module) -> list[Tensor]:
    """Train in float64 on the CPU, without lnsgd; return the weights."""
    net = net.double()
    inputs, labels = examples()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs.double()), labels).backward()
        optimizer.step()
    return [parameter.detach() for parameter in net.parameters()]


def assert_weights(net: nn.Module, expected: list[Tensor], atol: float) -> None:
    found = [parameter.detach().cpu().double() for parameter in net.parameters()]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_in_every_precision_is_that_of_a_loop(device, precision):
    net, seen = mlp(), []

    class Places(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.extend([batch.inputs.device.type, batch.labels.device.type])

    data = InMemory(examples(), batch_size=None)
    fit(classifier(net), data, device, precision=precision, callbacks=[Places()])
    assert set(seen) == {device.type} and len(seen) == 2 * STEPS
    assert_weights(net, loop(mlp()), PRECISIONS[precision])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_training_in_every_compile_mode_is_that_of_a_loop(device, mode):
    net = mlp()
    fit(classifier(net, compile_mode=mode), InMemory(examples(), batch_size=None), device)
    assert_weights(net, loop(mlp()), PRECISIONS["32-true"])


@pytest.mark.parametrize("channels_last", [False, True])
def test_training_a_convolutional_network_is_that_of_a_loop(device, channels_last):
    net = convolutional()
    data = InMemory(examples(), batch_size=None)
    fit(classifier(net, channels_last=channels_last), data, device, precision="64-true")
    assert_weights(net, loop(convolutional()), PRECISIONS["64-true"])


@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_replica_is_its_run_alone(device, batch_size):
    """With label noise, which both draw on the device."""
    options = {"precision": "64-true", "max_epochs": 3}
    data, noise, replicas = InMemory(examples(), batch_size=batch_size), UniformNoise(0.4), [Replica(5), Replica(6)]
    module = ReplicatedModule(classifier(mlp(), label_noise=noise), replicas)
    fit(module, ReplicatedData(data, replicas), device, **options)
    for index, replica in enumerate(replicas):
        with rng.forked(replica.seed, "init"):
            alone = classifier(MLP([6, 16, 3]), label_noise=noise, seed=replica.seed)
        fit(alone, data.variant(replica.seed), device, **options)
        for ours, theirs in zip(module.replica(index).net.parameters(), alone.net.parameters(), strict=True):
            torch.testing.assert_close(ours.cpu(), theirs.cpu(), rtol=1e-9, atol=1e-11)


def test_label_noise_has_its_distribution(device):
    """Of 200,000 labels p·(C−1)/C are flipped, to every other class alike; a key gives the same labels again."""
    n, p, classes = 200_000, 0.3, 10

    def drawn(seed: int) -> Tensor:
        labels = torch.zeros(n, dtype=torch.int64, device=device)
        return NoiseStream(UniformNoise(p), seed, (), classes, device).targets(labels, 0, n)

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert first.device.type == device.type
    assert torch.equal(first, again) and not torch.equal(first, other)
    counts = torch.bincount(first.cpu(), minlength=classes).double()[1:]
    expected = n * p / classes
    assert ((counts - expected).square() / expected).sum() < 30  # χ² of 9 degrees of freedom, 1 in 2,000
