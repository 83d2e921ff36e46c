"""Compare training with and without callbacks, in one process.

    python scripts/benchmarks/callback_overhead.py [DATA_DIR] [--nets mlp resnet20] [--callbacks trackers guard]
        [--device cpu|cuda] [--rounds N] [--epochs N] [--images N]

784-600-10 on MNIST and ResNet-20 on CIFAR-10, batches of 128 with label noise, the test set validated after every
epoch. The same run without callbacks, with the four trackers `ActiveNeurons`, `ClassAssociation`, `DistanceFromInit`
and `HessianTrace`, and with `FiniteGuard`, all as they are by default; they take turns. Prints one JSON object: seconds
of whole runs and of their inner epochs, which leave out the measurements before the first and after the last step, and
the ratios of the medians over rounds.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytorch_lightning as pl
import torch

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, FiniteGuard, HessianTrace
from lnsgd.data import CIFAR10, MNIST
from lnsgd.data.image import ImageData
from lnsgd.label_noise import UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.models import MLP, ResNet20
from lnsgd.modules import Classifier


class Experiment(NamedTuple):
    """A training task: network, data, learning rate, number of epochs, and of training images (``None`` for all)."""

    net: Callable[[], torch.nn.Module]
    data: Callable[[str | None, int | None], ImageData]
    lr: float
    epochs: int
    images: int | None = None


EXPERIMENTS = {
    "mlp": Experiment(lambda: MLP([784, 600, 10]), lambda folder, images: MNIST(folder, subset=images), 0.1, 12),
    "resnet20": Experiment(
        ResNet20,
        lambda folder, images: CIFAR10(folder, subset=images, standardize=True, eval_batch_size=500),
        0.1,
        4,
    ),
}


CALLBACKS: dict[str, Callable[[], list[pl.Callback]]] = {
    "trackers": lambda: [ActiveNeurons(), ClassAssociation(), DistanceFromInit(), HessianTrace()],
    "guard": lambda: [FiniteGuard()],
}


class Seconds(NamedTuple):
    """Seconds of a whole run, and of an epoch that is neither the first nor the last."""

    run: float
    epoch: float


class EpochClock(pl.Callback):
    """Record when each epoch of training starts."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.starts.append(now())


def now() -> float:
    """Return the time in seconds, after waiting for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def train(experiment: Experiment, folder: str | None, device: str, callbacks: list[pl.Callback]) -> Seconds:
    """Train once."""
    clock = EpochClock()
    module = Classifier(
        experiment.net(),
        label_noise=UniformNoise(0.1),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=experiment.lr, momentum=0.9),
    )
    with tempfile.TemporaryDirectory() as run_folder:
        trainer = pl.Trainer(
            max_epochs=experiment.epochs,
            accelerator=device,
            devices=1,
            callbacks=[*callbacks, clock],
            logger=CSVLogger(run_folder),
            default_root_dir=run_folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        start = now()
        trainer.fit(module, datamodule=experiment.data(folder, experiment.images))
        end = now()
    inner = [after - before for before, after in zip(clock.starts, clock.starts[1:])]
    return Seconds(end - start, statistics.median(inner[1:] or inner))


def compare(
    experiment: Experiment, names: Sequence[str], folder: str | None, device: str, rounds: int
) -> dict[str, object]:
    """Run all contestants in rounds, and return medians and ratios."""
    experiment.data(folder, experiment.images).prepare_data()
    contestants = {"without": list, **{f"with {name}": CALLBACKS[name] for name in names}}
    found: dict[str, list[Seconds]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, make in contestants.items():
            found[name].append(train(experiment, folder, device, make()))
    medians = {name: Seconds(*map(statistics.median, zip(*seconds))) for name, seconds in found.items()}
    plain = medians["without"]
    ratios = {}
    for name in list(medians)[1:]:
        ratios[f"{name} / without, inner epochs"] = round(medians[name].epoch / plain.epoch, 3)
        ratios[f"{name} / without, whole runs"] = round(medians[name].run / plain.run, 3)
    return {
        "epochs": experiment.epochs,
        "seconds": {name: _rounded(seconds) for name, seconds in medians.items()},
        "ratios": ratios,
    }


def _rounded(seconds: Seconds) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds._asdict().items()}


def main() -> None:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", nargs="?", help="folder of data sets; by default as for lnsgd.data.MNIST")
    parser.add_argument("--nets", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--callbacks", nargs="+", choices=CALLBACKS, default=list(CALLBACKS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="of every run, at least 2 (default: 12 and 4)")
    parser.add_argument("--images", type=int, help="for training (default: all)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    on_gpu = options.device == "cuda"
    chosen = {name: EXPERIMENTS[name] for name in options.nets}
    chosen = {name: experiment._replace(images=options.images) for name, experiment in chosen.items()}
    if options.epochs is not None:
        chosen = {name: experiment._replace(epochs=options.epochs) for name, experiment in chosen.items()}
    result = {
        "benchmark": "callback_overhead",
        "work": "training with callbacks at their defaults, and without; batch 128, validated every epoch",
        "images": options.images or "all",
        "nets": {
            name: compare(experiment, options.callbacks, options.data_dir, options.device, options.rounds)
            for name, experiment in chosen.items()
        },
        "hardware": {
            "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
        },
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
