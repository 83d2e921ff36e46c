"""What the programs in ``examples/`` print, computed again without lnsgd from the networks and the data they leave."""

import gzip
import re
from importlib.resources import files

import torch
from safetensors.torch import load
from torch import nn

CROSS_ENTROPY = nn.CrossEntropyLoss(reduction="none")


def mnist_sample(part):
    """Read a part of the MNIST sample: pixels in [0, 1], flattened to (examples, 784), and labels."""
    tensors = load(gzip.decompress((files("lnsgd.data") / "sample" / "mnist_sample.safetensors.gz").read_bytes()))
    return tensors[f"{part}_images"].flatten(1).float() / 255, tensors[f"{part}_labels"].long()


def two_layers(weights, inputs):
    """Compute pre-activations and outputs of a ReLU network with one hidden layer from its four tensors."""
    w, b, v, a = weights
    hidden = inputs @ w.T + b
    return hidden, hidden.clamp(min=0) @ v.T + a


def performance(outputs, labels):
    """Compute the mean cross-entropy, and the fraction of examples whose largest output is another class."""
    log_probabilities = outputs - outputs.logsumexp(-1, keepdim=True)
    loss = -log_probabilities.gather(-1, labels[..., None]).mean().item()
    return loss, (outputs.argmax(-1) != labels).float().mean().item()


def distance(net, initial):
    """Compute the Euclidean distance of all parameters of two networks of one kind."""
    pairs = zip(net.parameters(), initial.parameters())
    return sum((after.detach() - before.detach()).double().square().sum().item() for after, before in pairs) ** 0.5


def inputs_of(net, modules, *args, **kwargs):
    """Return the outputs of a network in eval mode, and the inputs of some of its modules in that pass."""
    seen = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone())) for module in modules
    ]
    net.eval()
    with torch.no_grad():
        outputs = net(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    return outputs, seen


def active_fraction(preactivations):
    """Compute which part of all units is positive, on average over examples."""
    units = torch.cat([values.flatten(1) for values in preactivations], 1)
    return (units > 0).double().mean().item()


def numbers_after(printed, *words):
    """Read the numbers in the last printed line in which they follow these words."""
    is_number = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?").fullmatch
    lines = [line.split() for line in printed.splitlines()]
    rest = [line[len(words) :] for line in lines if line[: len(words)] == list(words)]
    return [float(word) for word in [line for line in rest if line and is_number(line[0])][-1] if is_number(word)]
