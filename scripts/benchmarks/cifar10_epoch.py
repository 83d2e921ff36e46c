"""Compare the seconds per CIFAR-10 epoch of lnsgd, a hand-written loop, and a script with a DataLoader, in one process.

    python scripts/benchmarks/cifar10_epoch.py [DATA_DIR] [--device cpu|cuda] [--images N] [--rounds N]
        [--precision 32-true|bf16-mixed] [--workers N] [--channels-last] [--compile-mode MODE]

The same work for all: ResNet-20, cross-entropy, SGD with momentum and weight decay, batches of 128 in a new random
order each epoch, crops and mirror images. lnsgd trains under Lightning's Trainer and also keeps its training totals.
The hand-written loop has the images on the device, and crops and mirrors a batch there at once; it knows nothing of
Lightning, nor of keyed randomness. The script is as Idelbayev's (github.com/akamaster/pytorch_resnet_cifar10):
torchvision's transforms, image by image, in the workers of a DataLoader. All take the network of lnsgd, in the same
precision, memory format and compilation. With --images an epoch is that many of the 50,000 images.

Prints one JSON object; the contestants take turns, and the median over rounds counts. In every round each starts anew,
and its first epoch, in which compilers and workers start, does not count.
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
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import get_args

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lnsgd.data import CIFAR10
from lnsgd.models import ResNet20
from lnsgd.modules import Classifier
from lnsgd.modules.compiled import CompileMode

BATCH = 128
PADDING = 4
MEAN, STD = CIFAR10.mean, CIFAR10.std

# The epoch that warms up, and those of which the fastest counts.
EPOCHS = 3

sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)


@dataclass(frozen=True)
class Settings:
    """Settings from the command line."""

    data_dir: str | None
    device: torch.device
    images: int
    precision: str
    workers: int
    channels_last: bool
    compile_mode: CompileMode | None

    @property
    def autocast(self) -> torch.autocast:
        """Make the optimizer of the contestants without Lightning."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed")

    def network(self) -> tuple[nn.Module, nn.Module]:
        """Return the network of the contestants without Lightning, and the function that is called for its outputs."""
        net = ResNet20().to(self.device)
        if self.channels_last:
            net = net.to(memory_format=torch.channels_last)
        return net, torch.compile(net, mode=self.compile_mode, dynamic=False) if self.compile_mode else net

    def as_wanted(self, images: Tensor) -> Tensor:
        """Return a batch in the memory format of the network."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class EpochTimer(pl.Callback):
    """Record the seconds from the start of each epoch to the start of the next, or to the end."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.synchronize = synchronize
        self._starts: list[float] = []

    @property
    def seconds(self) -> list[float]:
        """Return the seconds of each epoch."""
        return [end - start for start, end in pairwise(self._starts)]

    def _mark(self) -> None:
        self.synchronize()
        self._starts.append(time.perf_counter())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark()


def lnsgd_epochs(settings: Settings) -> list[float]:
    """Time Classifier and CIFAR10 of lnsgd under the Trainer."""
    timer = EpochTimer(settings.synchronize)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator=settings.device.type,
        devices=1,
        precision=settings.precision,
        benchmark=True,
        callbacks=[timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    module = Classifier(
        ResNet20(), optimizer=sgd, channels_last=settings.channels_last, compile_mode=settings.compile_mode
    )
    subset = settings.images if settings.images < 50_000 else None
    trainer.fit(module, datamodule=CIFAR10(settings.data_dir, batch_size=BATCH, standardize=True, subset=subset))
    return timer.seconds


def augmented(images: Tensor) -> Tensor:
    """Crop images (B, 3, 32, 32), uint8, from a frame of zeros, and mirror half of them, all at once."""
    n, channels, height, width = images.shape
    framed = F.pad(images, (PADDING,) * 4)
    row, column = torch.randint(2 * PADDING + 1, (2, n, 1), device=images.device)
    j = torch.arange(width, device=images.device).expand(n, width)
    j = torch.where(torch.rand(n, 1, device=images.device) < 0.5, j, width - 1 - j)
    rows = row + torch.arange(height, device=images.device)
    places = rows.unsqueeze(2) * (width + 2 * PADDING) + (column + j).unsqueeze(1)
    places = places.view(n, 1, -1).expand(-1, channels, -1)
    return framed.flatten(2).gather(2, places).view(images.shape)


def hand_written_epochs(settings: Settings) -> list[float]:
    """Time a loop over tensors on the device."""
    data = CIFAR10(settings.data_dir).load(train=True)
    images = data.inputs[: settings.images].to(settings.device)
    labels = data.labels[: settings.images].to(settings.device)
    mean, std = (torch.tensor(values, device=settings.device).view(3, 1, 1) for values in (MEAN, STD))
    net, call = settings.network()
    optimizer = sgd(net.parameters())

    def epoch() -> None:
        for chosen in torch.randperm(len(labels), device=settings.device).split(BATCH):
            inputs = (augmented(images[chosen]).float() / 255 - mean) / std
            with settings.autocast:
                loss = F.cross_entropy(call(settings.as_wanted(inputs)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return [seconds(epoch, settings) for _ in range(EPOCHS)]


class Photographs(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A data set as torchvision's CIFAR10: an array of images, each of which becomes a PIL image and is transformed."""

    def __init__(self, images: np.ndarray, labels: list[int]) -> None:
        from torchvision import transforms

        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def dataloader_epochs(settings: Settings) -> list[float]:
    """Time a DataLoader with workers, as in Idelbayev's script."""
    data = CIFAR10(settings.data_dir).load(train=True)
    images = data.inputs[: settings.images].permute(0, 2, 3, 1).contiguous().numpy()
    loader = torch.utils.data.DataLoader(
        Photographs(images, data.labels[: settings.images].tolist()),
        BATCH,
        shuffle=True,
        num_workers=settings.workers,
        pin_memory=settings.device.type == "cuda",
        persistent_workers=settings.workers > 0,
    )
    net, call = settings.network()
    optimizer = sgd(net.parameters())

    def epoch() -> None:
        for inputs, labels in loader:
            inputs, labels = (part.to(settings.device, non_blocking=True) for part in (inputs, labels))
            with settings.autocast:
                loss = F.cross_entropy(call(settings.as_wanted(inputs)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return [seconds(epoch, settings) for _ in range(EPOCHS)]


def seconds(work: Callable[[], None], settings: Settings) -> float:
    """Return the wall-clock seconds of a call, to its end on the device."""
    settings.synchronize()
    start = time.perf_counter()
    work()
    settings.synchronize()
    return time.perf_counter() - start


CONTESTANTS: dict[str, Callable[[Settings], list[float]]] = {
    "hand_written_loop": hand_written_epochs,
    "lnsgd": lnsgd_epochs,
    "dataloader_script": dataloader_epochs,
}


def rounds(settings: Settings, number: int) -> Iterator[dict[str, float]]:
    """Run each contestant for a few epochs in rounds; the first epoch warms up."""
    for _ in range(number):
        yield {name: min(run(settings)[1:]) for name, run in CONTESTANTS.items()}


def parse() -> tuple[Settings, int]:
    """Read the settings and the number of rounds from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", nargs="?", help="folder of data sets; by default as for lnsgd.data.CIFAR10")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=50_000, help="part of the epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="of the DataLoader")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile-mode", choices=get_args(CompileMode), help="of torch.compile; by default without")
    given = parser.parse_args()
    if not 1 <= given.images <= 50_000:
        parser.error(f"--images {given.images}; give 1 to 50000")
    device = torch.device(given.device)
    settings = Settings(
        given.data_dir, device, given.images, given.precision, given.workers, given.channels_last, given.compile_mode
    )
    return settings, given.rounds


def main() -> None:
    """Print the JSON object."""
    settings, number = parse()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.backends.cudnn.benchmark = True  # as that script has it; for all
    CIFAR10(settings.data_dir).prepare_data()
    measured = list(rounds(settings, number))
    median = {name: statistics.median(row[name] for row in measured) for name in CONTESTANTS}
    cuda = settings.device.type == "cuda"
    result = {
        "benchmark": "cifar10_epoch",
        "work": "one epoch of CIFAR-10 with crops and mirror images, batch 128, ResNet-20, cross-entropy, SGD",
        "images": settings.images,
        "settings": {
            "device": settings.device.type,
            "precision": settings.precision,
            "workers": settings.workers,
            "channels_last": settings.channels_last,
            "compile_mode": settings.compile_mode,
            "rounds": number,
        },
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "images_per_second": {name: round(settings.images / value) for name, value in median.items()},
        "ratios": {
            f"{name} / lnsgd": round(statistics.median(row[name] / row["lnsgd"] for row in measured), 2)
            for name in ("hand_written_loop", "dataloader_script")
        },
        "hardware": {
            "machine": torch.cuda.get_device_name(settings.device) if cuda else platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
        },
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
