"""Compare the microseconds per step of R runs at batch one, of both engines of lnsgd and their peers, in one process.

    python scripts/benchmarks/replicas.py [--data_dir DIR] [--device cuda] [--only a|b] [--replicas R ...]
        [--quick]

Work: (a) a 60-240-1 and (b) a 784-600-10 ReLU network with biases, logistic loss, SGD, one sample a
step; (b) on real MNIST (the sample that ships with lnsgd). Peers: the loop one writes in eager
PyTorch, one run at a time; Lightning with a DataLoader, one run at a time; JAX `jit(vmap(scan))`
(``pip install 'lnsgd[bench]'``; left out with a word where it is missing). lnsgd draws its samples and its
label noise within the time given; the peers get theirs ready-made. After 1,000 steps from the same
weights on the same samples and labels all must agree to 1e-4, else the script fails.

Prints one JSON object. Each contestant is run in turns and its fastest turn counts.
"""

import argparse
import json
import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from lnsgd.data import MNIST, InMemory
from lnsgd.label_noise import GaussianNoise, UniformNoise
from lnsgd.losses import LogisticLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier, Regressor
from lnsgd.replicas import (
    BatchStream,
    LearningRate,
    Replica,
    ReplicaSettings,
    ReplicatedData,
    ReplicatedModule,
    StackedNetwork,
    StepRule,
    TrainingSet,
    TrainingState,
    choose_engine,
)

NOISE = 0.1
TURNS = 3
AGREEMENT_STEPS = 1000
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Problem:
    """A training problem."""

    widths: list[int]
    inputs: Tensor
    labels: Tensor
    num_classes: int
    lr: float


def problem_a() -> Problem:
    """Make the problem 60-240-1 on 240 points of a cube."""
    generator = torch.Generator().manual_seed(0)
    inputs = 2 * torch.rand(240, 60, generator=generator) - 1
    return Problem([60, 240, 1], inputs, torch.randint(2, (240,), generator=generator), 2, 1 / 60)


def problem_b() -> Problem:
    """Make the problem 784-600-10 on real digits."""
    data = MNIST(source="sample")
    data.setup()
    train = data.splits["train"]
    return Problem([784, 600, 10], data.transform(train.inputs).flatten(1), train.labels, 10, 0.01)


class Engines:
    """One engine of lnsgd with R replicas of a problem."""

    def __init__(self, name: str, problem: Problem, replicas: int, device: str) -> None:
        self.stack = StackedNetwork(MLP(problem.widths), list(range(replicas))).to(device)
        rule = StepRule(MLP(problem.widths), LogisticLoss(), "hard")
        state = TrainingState(self.stack.stacked_parameters(), {}, torch.full((replicas,), -1, device=device))
        engine, _ = choose_engine(name, rule, torch.device(device))  # type: ignore[arg-type]
        self.engine = engine(rule, state, problem.inputs.to(device))
        self.stream = stream(problem, replicas, device)
        self.step = 0

    def run(self, steps: int) -> None:
        """Draw samples and noise, and take the steps."""
        self.engine.run(self.stream.draw(self.step, steps))
        self.step += steps
        synchronize()


def stream(problem: Problem, replicas: int, device: str = "cpu") -> BatchStream:
    """Make the stream of samples and noisy labels of R replicas."""
    data = TrainingSet(torch.arange(len(problem.labels)), problem.labels)
    settings = [ReplicaSettings(seed, UniformNoise(NOISE), problem.lr) for seed in range(replicas)]
    classes = problem.num_classes
    return BatchStream([data] * replicas, settings, "replacement", 1, classes, LearningRate(None), device=device)


def synchronize() -> None:
    """Wait for a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def signs(problem: Problem, targets: Tensor) -> Tensor:
    """Return targets as 0 and 1 per output, which the peers take."""
    if problem.widths[-1] == 1:
        return targets.float().unsqueeze(-1)
    return nn.functional.one_hot(targets, problem.num_classes).float()


def drawn(problem: Problem, replicas: int, steps: int, device: str) -> tuple[Tensor, Tensor]:
    """Return rows (R, K) and targets (R, K, O) of the first steps on the CPU; noise depends on the device."""
    batches = stream(problem, replicas, device).draw(0, steps)
    return batches.rows[..., 0].cpu(), signs(problem, batches.targets[..., 0].cpu())


def plain_network(problem: Problem, replica: int) -> nn.Sequential:
    """Make the network of a replica, at its initialization, written without lnsgd."""
    d, hidden, outputs = problem.widths
    net = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    own = StackedNetwork(MLP(problem.widths), [replica]).replica(0)
    with torch.no_grad():
        for mine, theirs in zip(net.parameters(), own.parameters()):
            mine.copy_(theirs)
    return net


class Eager:
    """A plain PyTorch loop on the CPU, for one run, with the noise of a device."""

    def __init__(self, problem: Problem, replica: int, most_steps: int, device: str) -> None:
        self.net = plain_network(problem, replica)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=problem.lr)
        rows, self.targets = (t[replica] for t in drawn(problem, replica + 1, most_steps, device))
        self.inputs, self.rows = problem.inputs, rows.tolist()

    def run(self, steps: int) -> None:
        """Take the first steps."""
        for k in range(steps):
            self.optimizer.zero_grad()
            outputs = self.net(self.inputs[self.rows[k]])
            binary_cross_entropy_with_logits(outputs, self.targets[k], reduction="sum").backward()
            self.optimizer.step()


class _PlainModule(pl.LightningModule):
    def __init__(self, net: nn.Module, lr: float) -> None:
        super().__init__()
        self.net, self.lr = net, lr

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return binary_cross_entropy_with_logits(self.net(batch[0]), batch[1], reduction="sum")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Lightning:
    """Lightning with a DataLoader on the CPU, for one run, with the noise of a device."""

    def __init__(self, problem: Problem, replica: int, most_steps: int, device: str) -> None:
        self.module = _PlainModule(plain_network(problem, replica), problem.lr)
        self.net = self.module.net
        rows, targets = (t[replica] for t in drawn(problem, replica + 1, most_steps, device))
        self.data = TensorDataset(problem.inputs[rows], targets)

    def run(self, steps: int) -> None:
        """Take the first steps."""
        trainer(max_steps=steps).fit(self.module, DataLoader(self.data, batch_size=1))


def trainer(**limits: int) -> pl.Trainer:
    """Make a Trainer that does nothing besides training."""
    return pl.Trainer(
        **limits,  # type: ignore[arg-type]
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )


class Jax:
    """JAX on its default device: R runs mapped, the steps scanned, all compiled; with the noise of a device."""

    def __init__(self, problem: Problem, replicas: int, steps: int, device: str) -> None:
        import jax
        import jax.numpy as jnp

        # On some GPUs the default is a shorter number format than that of torch.
        jax.config.update("jax_default_matmul_precision", "highest")

        def loss(weights: list[Any], x: Any, target: Any) -> Any:
            w1, b1, w2, b2 = weights
            o = w2 @ jnp.maximum(w1 @ x + b1, 0) + b2
            return (jnp.logaddexp(0, o) - target * o).sum()

        def step(inputs: Any, weights: list[Any], drawn: tuple[Any, Any]) -> tuple[list[Any], None]:
            row, target = drawn
            gradient = jax.grad(loss)(weights, inputs[row], target)
            return [w - problem.lr * g for w, g in zip(weights, gradient)], None

        def scanned(inputs: Any, weights: list[Any], rows: Any, targets: Any) -> list[Any]:
            return jax.lax.scan(partial(step, inputs), weights, (rows, targets))[0]

        self.compiled = jax.jit(jax.vmap(scanned, in_axes=(None, 0, 0, 0)), donate_argnums=1)
        stack = StackedNetwork(MLP(problem.widths), list(range(replicas)))
        self.weights = [jnp.asarray(p.detach().numpy()) for p in stack.stacked_parameters().values()]
        rows, targets = drawn(problem, replicas, steps, device)
        self.inputs, self.rows, self.targets = (jnp.asarray(t.numpy()) for t in (problem.inputs, rows, targets))
        self.ready = jax.block_until_ready

    def run(self, steps: int) -> None:
        """Take all the steps that it was made for; compiled once for that number."""
        assert steps == self.rows.shape[1]
        self.weights = self.ready(self.compiled(self.inputs, self.weights, self.rows, self.targets))


def microseconds(run: Callable[[int], None], steps: int) -> float:
    """Return the time per step of the fastest of a few turns, after one that warms up."""
    run(steps)
    turns = []
    for _ in range(TURNS):
        start = time.perf_counter()
        run(steps)
        turns.append((time.perf_counter() - start) / steps)
    return 1e6 * min(turns)


def steps_for(problem: Problem, replicas: int, quick: bool) -> int:
    """Return the number of steps in a turn: about a second for the kernel."""
    cost = problem.widths[0] * problem.widths[1] * replicas
    return max(100, min(20_000, int((5e8 if quick else 5e9) / cost)))


def contestants(problem: Problem, replicas: int, device: str, quick: bool) -> dict[str, float]:
    """Measure the microseconds per step of all R runs."""
    steps = steps_for(problem, replicas, quick)
    found = {}
    for name in ("kernel", "general") if device == "cpu" else ("general",):
        found[name] = microseconds(Engines(name, problem, replicas, device).run, steps)
    if jax_is_there():
        found["jax"] = microseconds(Jax(problem, replicas, steps, device).run, steps)
    return found


def one_at_a_time(problem: Problem, device: str, quick: bool) -> dict[str, float]:
    """Measure the microseconds per step of a single run of the peers without replicas."""
    steps = 500 if quick else 2000
    return {
        "eager": microseconds(Eager(problem, 0, steps, device).run, steps),
        "lightning": microseconds(Lightning(problem, 0, steps, device).run, steps),
    }


def device_of_jax() -> str | None:
    """Return the kind of device that JAX uses, ``None`` without JAX."""
    if not jax_is_there():
        return None
    import jax

    return str(jax.default_backend())


def jax_is_there() -> bool:
    """Return whether JAX is installed."""
    try:
        import jax  # noqa: F401
    except ImportError:
        print("JAX is not installed and left out; pip install 'lnsgd[bench]'", file=sys.stderr)
        return False
    return True


def agreement(problem: Problem, device: str) -> float:
    """Return the largest difference of any weight between any two contestants after 1,000 steps of two runs."""
    everyone: list[list[np.ndarray]] = []
    for name in ("kernel", "general") if device == "cpu" else ("general",):
        engines = Engines(name, problem, 2, device)
        engines.run(AGREEMENT_STEPS)
        everyone.append([p.detach().cpu().numpy() for p in engines.stack.parameters()])
    for peer in (Eager, Lightning):
        runs = [peer(problem, replica, AGREEMENT_STEPS, device) for replica in range(2)]
        for run in runs:
            run.run(AGREEMENT_STEPS)
        everyone.append([np.stack([p.detach().numpy() for p in ps]) for ps in zip(*(r.net.parameters() for r in runs))])
    if jax_is_there():
        mapped = Jax(problem, 2, AGREEMENT_STEPS, device)
        mapped.run(AGREEMENT_STEPS)
        everyone.append([np.asarray(w) for w in mapped.weights])
    return max(float(np.abs(a - b).max()) for other in everyone for a, b in zip(everyone[0], other))


def mnist_epoch(replicas: int, data_dir: str | None) -> float:
    """Measure the seconds of an epoch of MNIST at batch one under the Trainer, after everything is compiled."""
    runs = [Replica(seed) for seed in range(replicas)]
    cell = Classifier(MLP([784, 600, 10]), LogisticLoss(), UniformNoise(NOISE), lambda p: torch.optim.SGD(p, lr=0.01))
    module = ReplicatedModule(cell, runs)
    ends: list[float] = []
    run = trainer(max_epochs=3)
    run.callbacks.append(pl.callbacks.LambdaCallback(on_train_epoch_end=lambda *_: ends.append(time.perf_counter())))
    run.fit(module, datamodule=ReplicatedData(MNIST(data_dir, batch_size=1), runs))
    return min(b - a for a, b in pairwise(ends))


def one_dimensional(steps: int) -> float:
    """Measure the seconds of a number of steps of a 1-100-1 network under the Trainer on one core."""
    torch.set_num_threads(1)
    x = torch.linspace(-1, 1, 12).unsqueeze(1)
    runs = [Replica(0)]

    def seconds(steps: int) -> float:
        cell = Regressor(MLP([1, 100, 1]), None, GaussianNoise(0.1), lambda p: torch.optim.SGD(p, lr=1e-3))
        data = ReplicatedData(InMemory((x, x.abs()), batch_size=1, replacement=True), runs)
        start = time.perf_counter()
        trainer(max_steps=steps, max_epochs=-1).fit(ReplicatedModule(cell, runs), datamodule=data)
        return time.perf_counter() - start

    seconds(1000)
    return seconds(steps)


def ratios(us: dict[str, float], replicas: int) -> dict[str, float]:
    """Return how many times faster the engines are; a peer that runs one at a time takes R times as long."""
    found = {}
    for engine in {"kernel", "general"} & set(us):
        for peer in ("eager", "lightning"):
            found[f"{peer} / {engine}"] = us[f"{peer}, one run"] * replicas / us[engine]
        if "jax" in us:
            found[f"jax / {engine}"] = us["jax"] / us[engine]
    return {name: round(ratio, 2) for name, ratio in sorted(found.items())}


def measured(problem: Problem, counts: list[int], device: str, quick: bool) -> dict[str, Any]:
    """Run all measurements of one problem."""
    alone = {f"{name}, one run": us for name, us in one_at_a_time(problem, device, quick).items()}
    table = {}
    for replicas in counts:
        us = {**contestants(problem, replicas, device, quick), **alone}
        shown = {name: round(value, 2) for name, value in us.items()}
        table[f"R={replicas}"] = {"us_per_step": shown, "ratios": ratios(us, replicas)}
    return table


def main() -> None:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data_dir", help="folder of data sets with the full MNIST; by default as for lnsgd.data.MNIST"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", choices=("a", "b"))
    parser.add_argument("--replicas", type=int, nargs="+", help="R (default: 1 20 100, on CUDA 64 512)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    counts = options.replicas or ([1, 20, 100] if options.device == "cpu" else [64, 512])
    result: dict[str, Any] = {
        "benchmark": "replicas",
        "hardware": {
            "machine": platform.machine() if options.device == "cpu" else torch.cuda.get_device_name(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
        },
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
        "device_of_jax": device_of_jax(),
    }
    for name, make in {"a": problem_a, "b": problem_b}.items():
        if options.only in (None, name):
            problem = make()
            largest = agreement(problem, options.device)
            title = f"({name}) " + "-".join(map(str, problem.widths))
            result[title] = {"largest_difference_after_1000_steps": largest}
            if not largest <= TOLERANCE:
                raise SystemExit(f"{title}: the contestants differ by {largest} after {AGREEMENT_STEPS} steps")
            result[title] |= measured(problem, counts, options.device, options.quick)
    if options.device == "cpu" and options.only != "a":
        result["mnist_epoch_seconds"] = {f"R={r}": round(mnist_epoch(r, options.data_dir), 2) for r in (1, 4)}
    if options.device == "cpu" and options.only is None:
        steps = 10**6 if options.quick else 10**7
        result["1-100-1, one core"] = {"steps": steps, "seconds": round(one_dimensional(steps), 2)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
