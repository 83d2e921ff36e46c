"""SGD on ⟨A, UUᵀ⟩ with the squared loss, in NumPy: the gradient written out by hand."""

import numpy as np


def outputs(u, matrices):
    return np.array([np.trace(a.T @ u @ u.T) for a in matrices])


def sgd(u, batches, momentum=0.0):
    """Train U (d, r) in place on batches (A (B, d, d), targets (B,), learning rate); return the sum of mean losses."""
    velocity, total = np.zeros_like(u), 0.0
    for matrices, targets, lr in batches:
        errors = outputs(u, matrices) - targets
        gradient = sum(2 * e * (a @ u + a.T @ u) for e, a in zip(errors, matrices)) / len(errors)
        velocity = momentum * velocity + gradient
        u -= lr * velocity
        total += (errors**2).mean()
    return total
