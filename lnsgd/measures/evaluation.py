"""Measuring never moves training: evaluation mode with everything put back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lnsgd import rng


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode; restores each module's own mode and the global random state on exit.

    Eval mode leaves buffers (BatchNorm's running statistics) as they are. Gradients that a measure
    takes with ``torch.autograd.grad`` leave ``.grad`` as it is.

    Args:
        model: Any module.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        with rng.preserved():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def is_finite(model: nn.Module) -> bool:
    """Whether all parameters and buffers of a model are finite.

    Outputs need not show it: a ReLU turns −∞ into zero. Measures of a model that is not finite are NaN.
    """
    values = (value.detach() for value in (*model.parameters(), *model.buffers()) if value.is_floating_point())
    return all(bool(_finite_sums(value.reshape(1, -1))) for value in values)


def finite_examples(*columns: Tensor) -> Tensor:
    """Which examples have finite numbers only, boolean (B,).

    Args:
        columns: Numbers of each example, (B, …); those that are not floating point are finite.
    """
    finite = torch.ones(len(columns[0]), dtype=torch.bool, device=columns[0].device)
    for column in columns:
        if column.is_floating_point():
            finite = finite & _finite_sums(column.detach().flatten(1) if column.ndim > 1 else column.detach()[:, None])
    return finite


def _finite_sums(rows: Tensor) -> Tensor:
    """Whether the sum of each row of (B, n) is finite, which takes one pass where looking at each number takes two.

    In double precision sums of finite single-precision numbers do not overflow.
    """
    return rows.sum(1, dtype=torch.float64).isfinite()


def outputs_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs of a model.

    Raises:
        ValueError: they are not one tensor of floating-point numbers.
    """
    outputs = model(inputs)
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        kind = outputs.dtype if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"{type(model).__name__} gives {kind}; measures need one tensor of floating-point outputs")
    return outputs


def per_example(losses: Tensor, examples: int) -> Tensor:
    """Losses (B,) as they are.

    Raises:
        ValueError: they are not one number for each example, such as their mean.
    """
    if losses.shape != (examples,):
        raise ValueError(
            f"the loss gives shape {tuple(losses.shape)} for {examples} examples; it must be per example: give a loss= "
            "such as torch.nn.CrossEntropyLoss(reduction='none')"
        )
    return losses
