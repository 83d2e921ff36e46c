"""Measuring never moves training: evaluation mode with everything put back."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lnsgd import rng


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode; restores each module's own mode and the global random state on exit.

    Eval mode leaves buffers (BatchNorm's running statistics) as they are. Gradients that a measure
    takes with ``torch.autograd.grad`` leave ``.grad`` as it is.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        with rng.preserved():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
