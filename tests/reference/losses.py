"""The losses of one example, from their formulas: plain loops over the outputs, in float64.

`outputs` is a list of floats; `target` is a class index, or a list of class probabilities.
"""

import math


def class_probability(target, c):
    """Return the probability of class c under a hard or soft target."""
    if isinstance(target, int):
        return 1.0 if target == c else 0.0
    return target[c]


def positive_probabilities(outputs, target):
    """Return for every output the probability that its y is +1; a single output stands for class 1."""
    if len(outputs) == 1:
        return [class_probability(target, 1)]
    return [class_probability(target, c) for c in range(len(outputs))]


def cross_entropy(outputs, target):
    total = 0.0
    for o in outputs:
        total += math.exp(o)
    loss = 0.0
    for c, o in enumerate(outputs):
        loss -= class_probability(target, c) * math.log(math.exp(o) / total)
    return loss


def logistic(outputs, target):
    loss = 0.0
    for o, q in zip(outputs, positive_probabilities(outputs, target)):
        loss += q * math.log(1 + math.exp(-o)) + (1 - q) * math.log(1 + math.exp(o))
    return loss


def hinge(outputs, target, beta):
    loss = 0.0
    for o, q in zip(outputs, positive_probabilities(outputs, target)):
        y = 1 if q == 1.0 else -1
        loss += max(0.0, beta - y * o)
    return loss


def squared(outputs, target, reduction):
    """Return class targets: one-hot or the probabilities themselves; ±1 or its mean for a single output."""
    values = positive_probabilities(outputs, target)
    if len(outputs) == 1:
        values = [values[0] * 1 + (1 - values[0]) * -1]
    return squared_to(outputs, values, reduction)


def squared_to(outputs, values, reduction):
    """Return real targets, one value per output."""
    loss = 0.0
    for o, t in zip(outputs, values):
        loss += (o - t) ** 2
    return loss / len(outputs) if reduction == "mean" else loss
