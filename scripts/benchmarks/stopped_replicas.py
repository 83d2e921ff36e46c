"""Measure how much time the general engine saves when some of R replicas were stopped.

    python scripts/benchmarks/stopped_replicas.py [--device cpu|cuda] [--replicas 12] [--width 80] [--quick]

Work: a 784-H-H-H-H-10 ReLU network, cross-entropy, SGD with momentum 0.9, batches of 64 images of the sample of
MNIST that ships with lnsgd, in float32 on one thread. Peer: the same engine that never narrows its stack. Both are run
in turns, and the fastest turn of each counts.

Prints one JSON object.
"""

import argparse
import json
import platform
import time

import torch

from lnsgd.data import MNIST
from lnsgd.label_noise import NoNoise
from lnsgd.losses import CrossEntropy
from lnsgd.models import MLP
from lnsgd.replicas import (
    BatchStream,
    LearningRate,
    ReplicaSettings,
    StackedNetwork,
    StepRule,
    TrainingSet,
    TrainingState,
)
from lnsgd.replicas.engines.general import GeneralEngine

BATCH, TURNS = 64, 5

# Steps after which all replicas that are to be stopped were stopped long ago.
BEGIN = 10**6


class Contestant:
    """An engine with its state, some of its replicas stopped before the first step."""

    def __init__(self, data: MNIST, width: int, replicas: int, stopped: int, narrows: bool, device: str) -> None:
        train = data.splits["train"]
        net = MLP([784, width, width, width, width, 10])
        parameters = StackedNetwork(net, list(range(replicas))).to(device).stacked_parameters()
        frozen_at = torch.where(torch.arange(replicas) < stopped, 0, -1).to(device)
        velocity = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        inputs = data.transform(train.inputs).flatten(1).to(device)
        self.engine = GeneralEngine(
            StepRule(net, CrossEntropy(), "hard", 0.9),
            TrainingState(parameters, velocity, frozen_at),
            inputs,
            steps_per_width=1000 if narrows else 10 * BEGIN,
        )
        own = TrainingSet(torch.arange(len(inputs)), train.labels)
        settings = [ReplicaSettings(seed, NoNoise(), 0.01) for seed in range(replicas)]
        self.stream = BatchStream([own] * replicas, settings, "shuffle", BATCH, 10, LearningRate(None), device=device)
        self.moving = list(range(stopped, replicas))
        self.step = BEGIN

    def seconds(self, steps: int) -> float:
        """Return the time of the steps, without drawing their batches."""
        batches = self.stream.draw(self.step, steps, self.moving)
        self.step += steps
        start = time.perf_counter()
        self.engine.run(batches)  # waits for the device, because it returns the losses
        return time.perf_counter() - start


def measured(data: MNIST, width: int, replicas: int, stopped: int, steps: int, device: str) -> dict[str, float]:
    """Measure with one number of stopped replicas."""
    both = {
        name: Contestant(data, width, replicas, stopped, name == "narrows", device) for name in ("whole", "narrows")
    }
    for one in both.values():
        one.seconds(1)  # compiles
    best = dict.fromkeys(both, float("inf"))
    for _ in range(TURNS):
        for name, one in both.items():
            best[name] = min(best[name], 1e6 * one.seconds(steps) / steps)
    found = {f"{name}, us per step": us for name, us in best.items()} | {"ratio": best["whole"] / best["narrows"]}
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--replicas", type=int, default=12)
    parser.add_argument("--width", type=int, default=80, help="H")
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = MNIST(source="sample")
    data.setup()
    replicas, steps = options.replicas, 100 if options.quick else 500
    table = {
        f"{stopped} of {replicas} stopped": measured(data, options.width, replicas, stopped, steps, options.device)
        for stopped in (0, replicas // 2, 3 * replicas // 4, replicas - 1)
    }
    machine = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    hardware = {"machine": machine, "torch_threads": torch.get_num_threads()}
    print(
        json.dumps(
            {"benchmark": "stopped replicas", "hardware": hardware, "torch": torch.__version__} | table, indent=2
        )
    )


if __name__ == "__main__":
    main()
