"""Samples and noise of the examples of a run, one example after the other, from the contract of `lnsgd.streams`.

Examples are counted from the first step of the run on.
"""

import torch

from lnsgd import rng

BLOCK = 16384


def place(example, n, order, seed):
    """Return the place in a data set of n examples of an example of the run."""
    if order == "sequential":
        return example % n
    if order == "replacement":
        block, row = divmod(example, BLOCK)
        return torch.randint(n, (BLOCK,), generator=rng.generator(seed, "order", block))[row].item()
    epoch, row = divmod(example, n)
    block, before = divmod(epoch, max(1, BLOCK // n))  # whole epochs, as many as fit into a block
    generator = rng.generator(seed, "order", block)
    for _ in range(before):
        torch.randperm(n, generator=generator)
    return torch.randperm(n, generator=generator)[row].item()


def places(start, count, n, order, seed):
    return torch.tensor([place(example, n, order, seed) for example in range(start, start + count)])


def uniform_targets(labels, p, num_classes, seed, start):
    """Return labels of examples start, start + 1, … with uniform label noise."""
    targets = []
    for example, label in enumerate(labels.tolist(), start):
        block, row = divmod(example, BLOCK)
        generator = rng.generator(seed, "noise", block)
        replaced = torch.rand(BLOCK, generator=generator) < p
        drawn = torch.randint(num_classes, (BLOCK,), generator=generator)
        targets.append(drawn[row].item() if replaced[row] else label)
    return torch.tensor(targets)


def gaussian_noise(std, shape, seed, start, count):
    """Return Gaussian noise of examples start, start + 1, …, each of a given shape."""
    rows = []
    for example in range(start, start + count):
        block, row = divmod(example, BLOCK)
        rows.append(std * torch.randn(BLOCK, *shape, generator=rng.generator(seed, "noise", block))[row])
    return torch.stack(rows)


def crop(example, padding, seed):
    """Return first row, first column and flip of an example's crop."""
    block, row = divmod(example, BLOCK)
    generator = rng.generator(seed, "augmentation", block)
    corners = torch.randint(2 * padding + 1, (BLOCK, 2), generator=generator)
    mirrored = torch.randint(2, (BLOCK, 1), generator=generator)
    return (*corners[row].tolist(), mirrored[row].item())
