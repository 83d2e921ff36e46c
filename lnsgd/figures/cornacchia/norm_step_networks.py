"""The networks of the figure on Theorem 1, one step of each, and a gradient flow: what is computed, in float64."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise, product
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lnsgd import rng
from lnsgd.losses import HingeLoss, LogisticLoss
from lnsgd.measures.closed_forms import norm_step
from lnsgd.models import MLP, HeNormal, TorchDefault, Uniform, XavierNormal

# The paper's default, like the step size 1/d² and the uniform initialization.
DIMENSION = 30
WIDTHS = (8, 120)
DEPTHS = (1, 2, 3, 4)
UNIFORM, DEFAULT = "U[−√3, √3]", "PyTorch default"
INITS = {
    UNIFORM: Uniform(sqrt(3), biases=True),
    DEFAULT: TorchDefault(),
    "He": HeNormal(),
    "Xavier": XavierNormal(),
}
NETS = 16  # for each seed, depth, initialization and kind

# Kinds of network. The theorem is about the first five; the others are controls.
RELU, LEAKY, AFFINE, OUTPUTS, CONVOLUTIONS = (
    "ReLU, no biases",
    "leaky ReLU",
    "inputs (x, 1)",
    "ten outputs",
    "convolutions",
)
BIASES, TANH = "ReLU with biases", "tanh, no biases"
FURTHER = (LEAKY, AFFINE, OUTPUTS, CONVOLUTIONS)
OPTIONS: dict[str, dict[str, Any]] = {
    BIASES: {"bias": True},
    TANH: {"bias": False, "activation": "tanh"},
    LEAKY: {"bias": False, "activation": "leaky_relu"},
}
CLASSES = 10
# Initializations that do not draw biases, or that are not for convolutions, are left out.
INITS_OF = {BIASES: (UNIFORM, DEFAULT), CONVOLUTIONS: (UNIFORM, DEFAULT)}
KERNEL, CHANNELS = 5, (2, 8)

# The gradient flow of Corollary 1: two hidden layers, on points with random labels.
FLOW = "gradient flow"
FLOW_WIDTHS, FLOW_POINTS = (DIMENSION, 16, 16, 1), 20
# Euler steps, because the gradient jumps where the sign of an output changes, and higher orders gain nothing. Such a
# jump adds up to h²‖∇‖² to a squared norm; a norm counts as rising if it rises by more than this part of itself.
FLOW_STEP, FLOW_STEPS, FLOW_EVERY = 1e-5, 2000, 20
FLOW_ERROR = 1e-6

LOSSES = {"hinge": HingeLoss(beta=0), "logistic": LogisticLoss()}
MISCLASSIFIED, CORRECT = "misclassified", "correct"
CASES = {
    RELU: [(MISCLASSIFIED, "hinge"), (MISCLASSIFIED, "logistic"), (CORRECT, "logistic")],
    BIASES: [(MISCLASSIFIED, "logistic")],
    TANH: [(MISCLASSIFIED, "logistic")],
    **{kind: [(MISCLASSIFIED, "logistic")] for kind in FURTHER},
}


class _Output(nn.Module):
    """One of the outputs of a network, as the loss of one digit in the paper's equation (3) sees it."""

    def __init__(self, net: nn.Module, number: int) -> None:
        super().__init__()
        self.net, self.number = net, number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)[:, [self.number]]


def compute(seed: int) -> pd.DataFrame:
    """Compute the numbers of `lnsgd.measures.closed_forms.norm_step`, with a row per layer, and those of the flow.

    Args:
        seed: The seed of networks and samples.
    """
    rows = []
    for depth, kind, init, number in product(DEPTHS, CASES, INITS, range(NETS)):
        if init not in INITS_OF.get(kind, INITS):
            continue
        with rng.forked(seed, "init", depth, list(CASES).index(kind), list(INITS).index(init), number):
            net = _network(kind, init, depth, number).double()
        x = torch.randn(1, DIMENSION, dtype=torch.float64, generator=rng.generator(seed, "data", depth, number))
        if kind == AFFINE:
            x = torch.cat([x, torch.ones(1, 1)], dim=1)
        described = {"kind": kind, "depth": depth, "init": init, "net": number}
        rows += [described | row for row in _layers(net, x, kind)]
    return pd.concat([pd.DataFrame(rows), pd.DataFrame(_flow(seed))], ignore_index=True)


def _network(kind: str, init: str, depth: int, number: int) -> nn.Module:
    """Draw a network from torch's global generator."""
    if kind == CONVOLUTIONS:
        return _convolutions(init, depth)
    hidden = torch.randint(WIDTHS[0], WIDTHS[1] + 1, (depth,)).tolist()
    inputs, outputs = DIMENSION + (kind == AFFINE), CLASSES if kind == OUTPUTS else 1
    net = MLP([inputs, *hidden, outputs], init=INITS[init], **OPTIONS.get(kind, {"bias": False}))
    return _Output(net, number % CLASSES) if kind == OUTPUTS else net


def _convolutions(init: str, depth: int) -> nn.Sequential:
    """Draw a network of convolutions along the inputs, with ReLUs, and a linear layer."""
    channels = [1, *torch.randint(CHANNELS[0], CHANNELS[1] + 1, (depth,)).tolist()]
    layers: list[nn.Module] = [nn.Unflatten(1, (1, DIMENSION))]
    for before, after in pairwise(channels):
        layers += [nn.Conv1d(before, after, KERNEL, bias=False), nn.ReLU()]
    units = channels[-1] * (DIMENSION - depth * (KERNEL - 1))
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(units, 1, bias=False))
    if init == UNIFORM:
        for weight in net.parameters():
            nn.init.uniform_(weight, -sqrt(3), sqrt(3))
    return net


def _layers(net: nn.Module, x: torch.Tensor, kind: str) -> Iterator[dict[str, Any]]:
    with torch.no_grad():
        output = net(x).item()
    if output == 0:  # a layer is silent: the sample is neither misclassified nor correct, and the gradient is 0
        return
    for verdict, loss in CASES[kind]:
        label = torch.tensor([int((output > 0) == (verdict == CORRECT))])
        step = norm_step(net, LOSSES[loss], x, label)
        weights = [tensor for name, tensor in step.tensors.items() if name.endswith("weight")]
        for layer, tensor in enumerate(weights):
            yield {"sample": verdict, "loss": loss, "layer": layer, "euler": step.euler, **asdict(tensor)}


def _flow(seed: int) -> Iterator[dict[str, Any]]:
    """Integrate the gradient flow, with a row per layer: its largest rise and its whole fall, relative to its norm."""
    with rng.forked(seed, "init", 0):
        net = MLP(FLOW_WIDTHS, bias=False, init=INITS[UNIFORM]).double()
    draw = rng.generator(seed, "data", 0)
    x = torch.randn(FLOW_POINTS, DIMENSION, dtype=torch.float64, generator=draw)
    labels = torch.randint(2, (FLOW_POINTS,), generator=draw)
    weights = list(net.parameters())
    norms = [_norms(weights)]
    for step in range(1, FLOW_STEPS + 1):
        gradients = torch.autograd.grad(LOSSES["hinge"](net(x), labels).mean(), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(FLOW_STEP * gradient)
        if step % FLOW_EVERY == 0:
            norms.append(_norms(weights))
    for layer, of_layer in enumerate(np.array(norms).T):
        described = {"kind": FLOW, "depth": len(FLOW_WIDTHS) - 2, "init": UNIFORM, "net": 0, "sample": FLOW}
        changes = {"rise": np.diff(of_layer).max() / of_layer[0], "fall": 1 - of_layer[-1] / of_layer[0]}
        yield {**described, "loss": "hinge", "layer": layer, **changes}


def _norms(weights: Sequence[torch.Tensor]) -> list[float]:
    return [weight.detach().norm().item() for weight in weights]
