"""SGD on a network with one hidden layer, V·φ(W·x + b) + c + S·x, in NumPy: gradients written out by hand."""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# φ and φ′.
ACTIVATIONS = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: 1.0 * (z > 0)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "logistic": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "cubic": (lambda z: z**3 + 0.1 * z, lambda z: 3 * z**2 + 0.1),
}

# Loss of outputs o and goals t of a batch, summed over outputs, and its derivative in o.
LOSSES = {
    "logistic": (lambda o, t: np.logaddexp(0, o) - t * o, lambda o, t: sigmoid(o) - t),
    "hinge": (lambda o, t: np.maximum(1 - t * o, 0), lambda o, t: -t * (t * o < 1)),
    "softmax": (
        lambda o, t: t * (np.logaddexp.reduce(o, 1, keepdims=True) - o),
        lambda o, t: np.exp(o) / np.exp(o).sum(1, keepdims=True) - t,
    ),
    "squared-sum": (lambda o, t: (o - t) ** 2, lambda o, t: 2 * (o - t)),
    "squared-mean": (lambda o, t: (o - t) ** 2 / o.shape[1], lambda o, t: 2 * (o - t) / o.shape[1]),
}


def goals(loss, targets, outputs):
    """Return targets as one number per output: values, probabilities, or signs (hinge loss, single output)."""
    if targets.shape[-1] == outputs and targets.dtype.kind == "f":
        return targets
    probabilities = targets if targets.dtype.kind == "f" else np.eye(max(2, outputs))[targets]
    if outputs == 1:
        probabilities = probabilities[..., 1:]
    signs = loss == "hinge" or (loss.startswith("squared") and outputs == 1)
    return 2 * probabilities - 1 if signs else probabilities


def sgd(weights, batches, activation, loss, momentum=0.0, frozen=()):
    """Train (W, b, V, c, S) in place on batches (x, goals, learning rate); return the sum of mean losses.

    S may be missing, as if it were zero and stayed so. ``frozen`` are the places of those that stay as they are.
    """
    phi, slope = ACTIVATIONS[activation]
    value, derivative = LOSSES[loss]
    w, b, v, c, *skip = weights
    velocity, total = [np.zeros_like(weight) for weight in weights], 0.0
    for x, t, lr in batches:
        z = x @ w.T + b
        o = phi(z) @ v.T + c + sum(x @ s.T for s in skip)
        total += value(o, t).sum() / len(x)
        e = derivative(o, t) / len(x)
        d = e @ v * slope(z)
        gradients = (d.T @ x, d.sum(0), e.T @ phi(z), e.sum(0), e.T @ x)
        for place, (weight, moving, gradient) in enumerate(zip(weights, velocity, gradients)):
            if place in frozen:
                continue
            moving[:] = momentum * moving + gradient
            weight -= lr * moving
    return total
