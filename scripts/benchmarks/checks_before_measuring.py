"""Compare the checks before a measure with the whole run, and `lnsgd.measure` with callbacks, in one process.

    python scripts/benchmarks/checks_before_measuring.py [DATA_DIR] [--device cpu|cuda] [--epochs N] [--rounds N]

784-600-10 on MNIST in a foreign LightningModule, batches of 128, with the trackers `ActiveNeurons`,
`ClassAssociation`, `DistanceFromInit` and `HessianTrace` as they are by default. Prints one JSON object: the seconds of
the run, those spent in `lnsgd.measuring.guard.check_measurable`, and their ratio; and the seconds that the callbacks
take for the first measurement of a run, those of one call of `lnsgd.measure` for the same network, measures and loader,
and the ratio of the medians over rounds. Both read the examples and check them.
"""

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch.nn import CrossEntropyLoss
from torch.utils.data import DataLoader, TensorDataset

import lnsgd
from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, HessianTrace
from lnsgd.callbacks.base import MeasureCallback
from lnsgd.data import MNIST
from lnsgd.measuring import measurer
from lnsgd.models import MLP


class Module(pl.LightningModule):
    """A module that knows nothing of lnsgd but its network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLP([784, 600, 10])
        self.loss = CrossEntropyLoss(reduction="none")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.loss(self(batch[0]), batch[1]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stopwatch:
    """Adds up the seconds that calls of a function take."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls: list[float] = []

    def wrapped(self) -> Callable[..., Any]:
        """Return the function, with its calls timed."""

        def timed(*args: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return self.function(*args, **options)
            finally:
                self.calls.append(time.perf_counter() - begun)

        return timed


def trackers() -> list[Any]:
    """Return the measures."""
    on_train = {"splits": ["train"]}
    neurons = [ActiveNeurons(**on_train), ClassAssociation(**on_train)]
    return [*neurons, DistanceFromInit(), HessianTrace(loss=CrossEntropyLoss(reduction="none"))]


def trainer_in(folder: str, device: str, **limit: int) -> pl.Trainer:
    """Return a Trainer with the callbacks, for so many epochs or steps."""
    return pl.Trainer(
        accelerator=device,
        devices=1,
        callbacks=trackers(),
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **limit,
    )


def first_measurement(module: Module, loader: DataLoader, device: str) -> float:
    """Return the seconds that the callbacks take before the first step of a run; the step is taken by a copy."""
    callbacks = Stopwatch(MeasureCallback._measure_all)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(MeasureCallback, "_measure_all", callbacks.wrapped()),
    ):
        trainer_in(folder, device, max_steps=1).fit(copy.deepcopy(module), loader)
    return sum(callbacks.calls[: len(trackers())])


def main() -> None:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", nargs="?", help="folder of data sets; by default as for lnsgd.data.MNIST")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind")
    options = parser.parse_args()
    data = MNIST(options.data_dir)
    data.prepare_data()
    data.setup()
    split = data.splits["train"]
    loader = DataLoader(TensorDataset(data.transform(split.inputs), split.labels), 128, shuffle=True)
    module = Module()
    init = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    checks = Stopwatch(measurer.check_measurable)
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(measurer, "check_measurable", checks.wrapped()),
    ):
        trainer = trainer_in(folder, options.device, max_epochs=options.epochs)
        trainer.fit(module, loader)
    seconds = time.perf_counter() - begun
    of_callbacks, of_measure = [], []
    for _ in range(options.rounds):
        of_callbacks.append(first_measurement(module, loader, options.device))
        begun = time.perf_counter()
        lnsgd.measure(module, loader, trackers(), init=init, device=options.device)
        of_measure.append(time.perf_counter() - begun)
    found = {
        "run": {"seconds": round(seconds, 2), "checks": round(sum(checks.calls), 3)},
        "measurement": {
            "callbacks": round(statistics.median(of_callbacks), 3),
            "measure": round(statistics.median(of_measure), 3),
        },
        "ratios": {
            "checks / run": round(sum(checks.calls) / seconds, 4),
            "measure / callbacks": round(statistics.median(of_measure) / statistics.median(of_callbacks), 3),
        },
        "epochs": options.epochs,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if options.device == "cuda" else platform.machine(),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
