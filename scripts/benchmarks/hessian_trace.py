"""Compare the seconds to a Hessian trace with 2 % standard error of lnsgd, curvlinops and PyHessian, in one process.

    python scripts/benchmarks/hessian_trace.py [--nets mlp resnet20] [--images N] [--probes K] [--device D]

The same network, briefly trained on the same images, in eval mode, and the mean softmax cross-entropy for
all: a 784-600-10 MLP on MNIST, ResNet-20 on CIFAR-10. Where a contestant would take too long, as all do that
multiply by the Hessian, K probes are taken, and ``seconds`` is what the spread of these asks for:
seconds per probe · (spread / 2 %)². Prints one JSON object, with each estimate and its error.
"""

import argparse
import contextlib
import io
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd.data import CIFAR10, MNIST
from lnsgd.data.tensor_data import TensorData
from lnsgd.losses import CrossEntropy
from lnsgd.measures import Estimate, hessian_trace
from lnsgd.models import MLP, ResNet20

RTOL = 0.02
BATCH = 100

Batches = list[tuple[Tensor, Tensor]]
Row = dict[str, Any]


def batches_of(data: TensorData, images: int, device: str) -> Batches:
    """Return the first images of the training set."""
    data.setup()
    loader = data.measurement_dataloader("train", images)
    return [
        (x.to(device), y.to(device))
        for inputs, labels, _ in loader
        for x, y in zip(inputs.split(BATCH), labels.split(BATCH))
    ]


def trained(net: nn.Module, batches: Batches, epochs: int) -> nn.Module:
    """Train a network for a few epochs, and return it in eval mode."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for inputs, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs), labels).backward()
            optimizer.step()
    return net.eval()


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def gradient(net: nn.Module, batches: Batches) -> None:
    """Compute one gradient of the mean loss."""
    for inputs, labels in batches:
        torch.autograd.grad(nn.functional.cross_entropy(net(inputs), labels), list(net.parameters()))


def lnsgd_row(net: nn.Module, batches: Batches, probes: int | None = None, rtol: float = RTOL, **options: Any) -> Row:
    """Time one of lnsgd's methods, to the tolerance or with a number of probes."""
    limit = {} if probes is None else {"min_probes": probes, "max_probes": probes}

    def trace(data: Batches) -> Estimate:
        return hessian_trace(net, CrossEntropy(), data, rtol=rtol, **options, **limit).total

    trace(batches[:1])  # the peers have their warm-up in `sampled_row`
    seconds, found = timed(lambda: trace(batches))
    relative = found.standard_error / found.value
    row = {"trace": found.value, "standard_error": found.standard_error, "probes": found.probes}
    if probes is None:
        return {**row, "seconds": seconds}
    return {**row, "seconds": seconds * (relative / RTOL) ** 2, "seconds_per_probe": seconds / found.probes}


def sampled_row(probe: Callable[[], float], probes: int) -> Row:
    """Time a contestant that takes one probe after the other."""
    probe()
    seconds, values = timed(lambda: [probe() for _ in range(probes)])
    error = statistics.stdev(values) / probes**0.5
    trace = statistics.fmean(values)
    needed = (statistics.stdev(values) / trace / RTOL) ** 2
    return {
        "trace": trace,
        "standard_error": error,
        "probes": probes,
        "seconds": seconds / probes * needed,
        "seconds_per_probe": seconds / probes,
    }


def curvlinops_probe(kind: str, net: nn.Module, batches: Batches) -> Callable[[], float]:
    """Take one Hutchinson probe of a curvlinops operator."""
    import curvlinops

    operator = getattr(curvlinops, kind)(
        net, nn.CrossEntropyLoss(), list(net.parameters()), batches, check_deterministic=False
    )
    return lambda: float(curvlinops.hutchinson_trace(operator, num_matvecs=1))


def pyhessian_probe(net: nn.Module, batches: Batches, device: str) -> Callable[[], float]:
    """Take one probe of PyHessian."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyhessian import hessian

    cuda = device != "cpu"
    with contextlib.redirect_stdout(io.StringIO()):
        operator = hessian(net, nn.CrossEntropyLoss(), dataloader=batches, cuda=cuda)
    return lambda: float(operator.trace(maxIter=1)[0])


def contestants(net: nn.Module, batches: Batches, probes: int, device: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Return the contestants by name."""
    row = partial(lnsgd_row, net, batches)
    yield "lnsgd", row
    yield "lnsgd exact", lambda: row(rtol=1e-9)
    yield "lnsgd hutchinson", lambda: row(probes, method="hutchinson")
    for kind in ("HessianLinearOperator", "GGNLinearOperator"):
        yield f"curvlinops {kind}", lambda kind=kind: sampled_row(curvlinops_probe(kind, net, batches), probes)
    yield "pyhessian", lambda: sampled_row(pyhessian_probe(net, batches, device), probes)


def compare(name: str, options: argparse.Namespace) -> Row:
    """Run all contestants on one network."""
    torch.manual_seed(0)
    if name == "mlp":
        batches = batches_of(MNIST(options.data_dir, batch_size=BATCH), options.images, options.device)
        net = trained(MLP([784, 600, 10]).to(options.device), batches, epochs=5)
    else:
        batches = batches_of(CIFAR10(options.data_dir, augment=False), options.images, options.device)
        net = trained(ResNet20().to(options.device), batches, epochs=5)
    gradient(net, batches)
    seconds, _ = timed(lambda: gradient(net, batches))
    rows = {label: call() for label, call in contestants(net, batches, options.probes, options.device)}
    peers = {label: row["seconds"] for label, row in rows.items() if not label.startswith("lnsgd")}
    best = min(peers, key=lambda label: peers[label])
    return {
        "gradient_seconds": seconds,
        "contestants": rows,
        "better_peer": best,
        "ratio": peers[best] / rows["lnsgd"]["seconds"],
        "budget": 5,
    }


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["mlp", "resnet20"], choices=["mlp", "resnet20"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--probes", type=int, default=16, help="of contestants that are not run to the end")
    parser.add_argument("--data-dir", help="MNIST and CIFAR-10; by default $LNSGD_DATA_DIR")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    gpu = torch.cuda.get_device_name() if options.device != "cpu" else None
    report = {
        "work": f"Hessian trace to {RTOL:.0%} standard error, {options.images} images",
        **{name: compare(name, options) for name in options.nets},
        "versions": {p: version(p) for p in ("torch", "curvlinops-for-pytorch", "pyhessian")},
        "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads(), "gpu": gpu},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
