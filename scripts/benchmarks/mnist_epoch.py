"""Compare the seconds per MNIST epoch of lnsgd, a hand-written loop, and Lightning with a DataLoader, in one process.

    python scripts/benchmarks/mnist_epoch.py [DATA_DIR] [--device cpu|cuda] [--images N] [--rounds N]

The same work for all: a 784-600-10 ReLU network, one-vs-rest logistic loss, SGD, batches of 128 in a
new random order each epoch, 60,000 images or the given number. lnsgd also draws label noise and keeps its training
totals. Prints one JSON object; the contestants take turns, three epochs each of
which the first warms up, and the median over rounds of the faster of the other two counts.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from lnsgd.data import MNIST
from lnsgd.label_noise import UniformNoise
from lnsgd.losses import LogisticLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier

BATCH = 128
LR = 0.4
WIDTHS = [784, 600, 10]


def logistic_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss of all contestants, written without lnsgd."""
    targets = one_hot(labels, 10).float()
    return binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(1).mean()


def plain_network() -> nn.Module:
    """Make the network, written without lnsgd."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 600), nn.ReLU(), nn.Linear(600, 10))


def trainer(epochs: int, device: str) -> pl.Trainer:
    """Make a Trainer that does nothing besides training."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator=device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )


class EpochTimer(pl.Callback):
    """Record the seconds of each epoch."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(self.device)
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(self.device)
        self.seconds.append(time.perf_counter() - self.start)


def lnsgd_epochs(data_dir: str | None, device: str, images: int, epochs: int) -> list[float]:
    """Time Classifier and MNIST of lnsgd under the Trainer."""
    timer = EpochTimer(device)
    module = Classifier(MLP(WIDTHS), LogisticLoss(), UniformNoise(0.1), lambda p: torch.optim.SGD(p, lr=LR))
    run = trainer(epochs, device)
    run.callbacks.append(timer)
    run.fit(module, datamodule=MNIST(data_dir, subset=images, batch_size=BATCH))
    return timer.seconds


def hand_written_epochs(data_dir: str | None, device: str, images: int, epochs: int) -> list[float]:
    """Time a loop over tensors on the device."""
    data = MNIST(data_dir).load(train=True)
    inputs, labels = data.inputs[:images].to(device), data.labels[:images].to(device)
    net = plain_network().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def epoch() -> None:
        for chosen in torch.randperm(len(labels), device=device).split(BATCH):
            loss = logistic_loss(net(inputs[chosen].float() / 255), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return [seconds(epoch, device) for _ in range(epochs)]


class PlainModule(pl.LightningModule):
    """A module as in Lightning's tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain_network()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = logistic_loss(self.net(inputs), labels)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=LR)


def lightning_epochs(data_dir: str | None, device: str, images: int, epochs: int, workers: int) -> list[float]:
    """Time Lightning with torchvision and a DataLoader."""
    from torchvision import datasets, transforms

    dataset = datasets.MNIST(str(MNIST(data_dir).folder), train=True, transform=transforms.ToTensor())
    some = torch.utils.data.Subset(dataset, range(images))
    loader = torch.utils.data.DataLoader(some, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    timer = EpochTimer(device)
    run = trainer(epochs, device)
    run.callbacks.append(timer)
    run.fit(PlainModule(), loader)
    return timer.seconds


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], None], device: str) -> float:
    """Return the wall-clock seconds of a call, to its end on the device."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def rounds(data_dir: str | None, device: str, images: int, number: int) -> Iterator[dict[str, float]]:
    """Run each contestant for a few epochs in rounds; the first epoch warms up."""
    contestants: dict[str, Callable[[int], list[float]]] = {
        "hand_written_loop": lambda n: hand_written_epochs(data_dir, device, images, n),
        "lnsgd": lambda n: lnsgd_epochs(data_dir, device, images, n),
        "lightning_dataloader": lambda n: lightning_epochs(data_dir, device, images, n, workers=0),
        "lightning_dataloader_2_workers": lambda n: lightning_epochs(data_dir, device, images, n, workers=2),
    }
    for _ in range(number):
        yield {name: min(run(3)[1:]) for name, run in contestants.items()}


def main() -> None:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", nargs="?", help="folder of data sets; by default as for lnsgd.data.MNIST")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=60_000, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    MNIST(options.data_dir).prepare_data()
    measured = list(rounds(options.data_dir, options.device, options.images, options.rounds))
    median = {name: statistics.median(row[name] for row in measured) for name in measured[0]}
    dataloader = min(median["lightning_dataloader"], median["lightning_dataloader_2_workers"])
    result = {
        "benchmark": "mnist_epoch",
        "work": "one epoch of MNIST, batch 128, 784-600-10, one-vs-rest logistic loss, SGD",
        "images": options.images,
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "ratios": {
            "hand_written_loop / lnsgd": round(median["hand_written_loop"] / median["lnsgd"], 2),
            "lightning_dataloader (the faster) / lnsgd": round(dataloader / median["lnsgd"], 2),
        },
        "hardware": {
            "machine": torch.cuda.get_device_name() if options.device == "cuda" else platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
        },
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
