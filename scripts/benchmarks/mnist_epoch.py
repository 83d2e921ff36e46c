"""Seconds per MNIST epoch: lnsgd, a hand-written loop, and Lightning with a DataLoader, in one process.

    python scripts/benchmarks/mnist_epoch.py [DATA_DIR] [--rounds N]

The same work for all: a 784-600-10 ReLU network, one-vs-rest logistic loss, SGD, batches of 128 in a
new random order each epoch, 60,000 images. lnsgd also draws label noise and keeps its training
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
    """What everybody minimizes here, written without lnsgd."""
    targets = one_hot(labels, 10).float()
    return binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(1).mean()


def plain_network() -> nn.Module:
    """The network, written without lnsgd."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 600), nn.ReLU(), nn.Linear(600, 10))


def trainer(epochs: int) -> pl.Trainer:
    """A Trainer that does nothing besides training."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )


class EpochTimer(pl.Callback):
    """Keeps the seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def lnsgd_epochs(data_dir: str | None, epochs: int) -> list[float]:
    """Classifier and MNIST of lnsgd under the Trainer."""
    timer = EpochTimer()
    module = Classifier(MLP(WIDTHS), LogisticLoss(), UniformNoise(0.1), lambda p: torch.optim.SGD(p, lr=LR))
    run = trainer(epochs)
    run.callbacks.append(timer)
    run.fit(module, datamodule=MNIST(data_dir, batch_size=BATCH))
    return timer.seconds


def hand_written_epochs(data_dir: str | None, epochs: int) -> list[float]:
    """Tensors and a loop, nothing else."""
    data = MNIST(data_dir).load(train=True)
    images, labels = data.inputs, data.labels
    net = plain_network()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def epoch() -> None:
        for chosen in torch.randperm(len(labels)).split(BATCH):
            loss = logistic_loss(net(images[chosen].float() / 255), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return [seconds(epoch) for _ in range(epochs)]


class PlainModule(pl.LightningModule):
    """The module of every Lightning tutorial."""

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


def lightning_epochs(data_dir: str | None, epochs: int, workers: int) -> list[float]:
    """Lightning, torchvision and a DataLoader."""
    from torchvision import datasets, transforms

    dataset = datasets.MNIST(str(MNIST(data_dir).folder), train=True, transform=transforms.ToTensor())
    loader = torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    timer = EpochTimer()
    run = trainer(epochs)
    run.callbacks.append(timer)
    run.fit(PlainModule(), loader)
    return timer.seconds


def seconds(work: Callable[[], None]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rounds(data_dir: str | None, epochs: int) -> Iterator[dict[str, float]]:
    """Rounds in which each contestant runs a few epochs; the first epoch of each warms up."""
    contestants: dict[str, Callable[[int], list[float]]] = {
        "hand_written_loop": lambda n: hand_written_epochs(data_dir, n),
        "lnsgd": lambda n: lnsgd_epochs(data_dir, n),
        "lightning_dataloader": lambda n: lightning_epochs(data_dir, n, workers=0),
        "lightning_dataloader_2_workers": lambda n: lightning_epochs(data_dir, n, workers=2),
    }
    for _ in range(epochs):
        yield {name: min(run(3)[1:]) for name, run in contestants.items()}


def main() -> None:
    """Prints the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", nargs="?", help="folder of data sets; by default as for lnsgd.data.MNIST")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    MNIST(options.data_dir).prepare_data()
    measured = list(rounds(options.data_dir, options.rounds))
    median = {name: statistics.median(row[name] for row in measured) for name in measured[0]}
    dataloader = min(median["lightning_dataloader"], median["lightning_dataloader_2_workers"])
    result = {
        "benchmark": "mnist_epoch",
        "work": "one epoch of MNIST, batch 128, 784-600-10, one-vs-rest logistic loss, SGD",
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "ratios": {
            "hand_written_loop / lnsgd": round(median["hand_written_loop"] / median["lnsgd"], 2),
            "lightning_dataloader (the faster) / lnsgd": round(dataloader / median["lnsgd"], 2),
        },
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "torch_threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
