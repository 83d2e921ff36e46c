"""Naive measures: plain loops and dense Hessians in float64, to compare the library with."""

import copy
import math

import torch
from torch import nn


def linear_loop(inputs, weight, bias):
    """Compute pre-activations of a linear layer, one product at a time; a list of lists (examples, units)."""
    inputs, weight, bias = inputs.flatten(1).tolist(), weight.tolist(), bias.tolist()
    return [[b + sum(w * v for w, v in zip(row, x)) for row, b in zip(weight, bias)] for x in inputs]


def conv_loop(images, weight, bias):
    """Compute pre-activations of a convolution (stride 1, no padding), flattened to (examples, C·H·W)."""
    side = weight.shape[-1]
    rows, columns = images.shape[-2] - side + 1, images.shape[-1] - side + 1
    flat = []
    for image in images:
        units = []
        for channel in range(len(weight)):
            for i in range(rows):
                for j in range(columns):
                    window = image[:, i : i + side, j : j + side].flatten().tolist()
                    kernel = weight[channel].flatten().tolist()
                    units.append(bias[channel].item() + sum(k * v for k, v in zip(kernel, window)))
        flat.append(units)
    return flat


def mean_active_loop(preactivations):
    """Compute the mean over examples of the number of units with a positive pre-activation."""
    active = 0
    for example in preactivations:
        for value in example:
            if value > 0:
                active += 1
    return active / len(preactivations)


def firings_loop(preactivations, labels, num_classes):
    """Count on how many examples of each class each unit fires; a list of lists (classes, units)."""
    units = len(preactivations[0])
    fired = [[0] * units for _ in range(num_classes)]
    for c in range(num_classes):
        for unit in range(units):
            for example, label in zip(preactivations, labels):
                if label == c and example[unit] > 0:
                    fired[c][unit] += 1
    return fired


def associated_loop(firings, threshold):
    """Find the class of each unit: the one that exceeds every other one by the factor; −1 if there is none."""
    found = []
    for unit in range(len(firings[0])):
        of_unit = [row[unit] for row in firings]
        owner = -1
        for c, own in enumerate(of_unit):
            others = of_unit[:c] + of_unit[c + 1 :]
            if own > 0 and all(own >= threshold * other for other in others):
                owner = c
        found.append(owner)
    return found


def flat_distance(tensors, starts):
    """Compute the Euclidean distance of two lists of tensors, each concatenated to one flat vector."""
    flat = [value for tensor in tensors for value in tensor.flatten().tolist()]
    start = [value for tensor in starts for value in tensor.flatten().tolist()]
    return math.dist(flat, start)


def dense_hessian(model, loss, inputs, labels):
    """Compute the Hessian of the mean loss in eval mode by the trainable parameters, each entry on its own.

    Returns the matrix in the order of ``model.named_parameters()``, and the slice of each tensor in it.
    """
    model = copy.deepcopy(model).double().eval()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    slices, end = {}, 0
    for name, p in named.items():
        slices[name] = slice(end, end + p.numel())
        end += p.numel()

    def mean_loss(flat):
        weights = {name: flat[slices[name]].view_as(p) for name, p in named.items()}
        return loss(torch.func.functional_call(model, weights, (inputs.double(),)), labels).mean()

    flat = torch.cat([p.detach().flatten() for p in named.values()])
    return torch.autograd.functional.hessian(mean_loss, flat), slices


def dense_traces(model, loss, inputs, labels):
    """Compute the trace of the dense Hessian, in total and of the diagonal block of each tensor."""
    hessian, slices = dense_hessian(model, loss, inputs, labels)
    diagonal = hessian.diagonal()
    return diagonal.sum().item(), {name: diagonal[place].sum().item() for name, place in slices.items()}


def relu_net_logistic_trace(hidden: nn.Linear, output: nn.Linear, inputs):
    """Compute the trace of the Hessian of the mean one-vs-rest logistic loss of a one-hidden-layer ReLU net.

    Such a net is linear in each weight alone, so its outputs o_c have no second derivatives on the
    diagonal, and the trace is the mean over examples of Σ_c σ(o_c)(1 − σ(o_c)) ‖∇o_c‖².
    """
    w, b, v, a = (t.detach().double() for t in (hidden.weight, hidden.bias, output.weight, output.bias))
    total = 0.0
    for x in inputs.double().flatten(1):
        z = w @ x + b
        active = (z > 0).double()
        for c in range(len(v)):
            probability = torch.sigmoid(v[c] @ (z * active) + a[c])
            of_output_layer = (z * active).square().sum() + 1
            of_hidden_layer = (v[c] * active).square().sum() * (x.square().sum() + 1)
            total += (probability * (1 - probability) * (of_output_layer + of_hidden_layer)).item()
    return total / len(inputs)


def dead_loop(preactivations):
    """Count the units whose pre-activation is positive on no example."""
    dead = 0
    for unit in range(len(preactivations[0])):
        if not any(example[unit] > 0 for example in preactivations):
            dead += 1
    return dead


def statistics_loop(tensor):
    """Compute Frobenius norm, mean and largest entry of a tensor, entry by entry."""
    squares, total, largest = 0.0, 0.0, -math.inf
    entries = tensor.flatten().tolist()
    for entry in entries:
        squares += entry * entry
        total += entry
        if entry > largest:
            largest = entry
    return math.sqrt(squares), total / len(entries), largest


def largest_magnitude_loop(outputs):
    """Find the largest |entry| of a list of lists."""
    largest = 0.0
    for row in outputs:
        for entry in row:
            if abs(entry) > largest:
                largest = abs(entry)
    return largest
