"""Networks and data small enough for a dense Hessian, and the state that a measure must not change."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from lnsgd.measures import Share
from lnsgd.models import MLP, ResNet20
from tests.tolerances import EXACT

CLASSES = 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mlp(activation="relu", **options):
    torch.manual_seed(0)
    return MLP([4, 5, CLASSES], activation=activation, **options).double()


def vectors(n=12):
    source = generator(1)
    return torch.randn(n, 4, generator=source, dtype=torch.float64), torch.randint(CLASSES, (n,), generator=source)


def conv_net():
    """Make a convolution, BatchNorm with running statistics that differ from the default, ReLU, and a linear head."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES)).double()
    with torch.no_grad():
        net(3 + 2 * torch.randn(20, 1, 4, 4, dtype=torch.float64))
    return net


def images(n=10):
    source = generator(2)
    inputs = torch.randn(n, 1, 4, 4, generator=source, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (n,), generator=source)


def narrow_resnet():
    """Make a ResNet-20 with 1, 2 and 4 channels, 1,172 weights, and BatchNorm that differs from its initial state."""
    torch.manual_seed(0)
    net = ResNet20(CLASSES, width=1).double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
    return net


class Net(nn.Module):
    """A forward pass as a function of the network and its input, and the modules and parameters it uses."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


class Noisy(nn.Module):
    """Make a network with BatchNorm, Dropout and mixed modes: everything that a measurement could disturb."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(6, CLASSES)
        self.body[1].eval()  # a frozen BatchNorm in a model that trains
        self.body[0].weight.grad = torch.full_like(self.body[0].weight, 3.0)

    def forward(self, x):
        return self.head(self.body(x))


class DrawingBatches:
    """Make batches from a loader that draws from every global generator."""

    def __iter__(self):
        for _ in range(2):
            np.random.rand()
            random.random()
            yield torch.randn(5, 4), torch.randint(CLASSES, (5,))


def snapshot(model):
    """Return the state that must not change: weights, buffers, gradients, modes and random states."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "trainable": {name: p.requires_grad for name, p in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


def assert_same(before, after):
    for kind in ("state", "grads"):
        assert before[kind].keys() == after[kind].keys()
        for name, value in before[kind].items():
            other = after[kind][name]
            assert other is None if value is None else torch.equal(value, other), (kind, name)
    assert torch.equal(before["torch"], after["torch"])
    for kind in ("trainable", "modes", "numpy", "python"):
        assert before[kind] == after[kind], kind


def in_processes(measure, count=2):
    """Return results of ``measure(share)`` for the shares of processes, which are threads that sum as processes do."""
    barrier, sent = threading.Barrier(count, timeout=60), [None] * count

    def share(rank):
        def reduce(tensor):
            sent[rank] = tensor.clone()
            barrier.wait()
            total = torch.stack(sent).sum(0)
            barrier.wait()
            return total

        return Share(rank, count, reduce)

    def run(rank):
        try:
            return measure(share(rank))
        except BaseException:
            barrier.abort()  # or the others would wait for it
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def part(batches, share):
    """Return the examples of a share: of every batch its rank-th and every ``world``-th one after it."""
    return [tuple(tensor[share.rank :: share.world] for tensor in batch) for batch in batches]


def assert_equal_traces(found, expected):
    """Check that two `TraceEstimate` are equal up to the order of sums."""
    assert found.method == expected.method
    pairs = [(found.total, expected.total), *zip(found.per_tensor.values(), expected.per_tensor.values())]
    for ours, theirs in pairs:
        assert ours.value == pytest.approx(theirs.value, rel=EXACT["rtol"], abs=EXACT["atol"])
        # A standard error of 0 comes out as the root of rounding.
        assert ours.standard_error == pytest.approx(theirs.standard_error, rel=1e-9, abs=1e-9)
        assert (ours.probes, ours.samples) == (theirs.probes, theirs.samples)
