"""Numbers of at least single precision, whatever the network computes in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def at_least_single(values: Tensor) -> Tensor:
    """Half-precision floating-point values (float16, bfloat16) as float32, all others as they are."""
    return values.float() if values.dtype.is_floating_point and values.dtype.itemsize < 4 else values


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Turns autocast off, and makes new tensors at least float32 where the default type is a half-precision one."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(default, torch.float32))
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(default)


@contextmanager
def single_precision_weights(model: nn.Module) -> Iterator[None]:
    """Puts float32 copies in the place of half-precision parameters and buffers; on exit the very same are back.

    The model's function is the same one, in finer arithmetic. A tensor that is shared stays shared.
    """
    copies: dict[Tensor, Tensor] = {}
    originals: list[tuple[nn.Module, str, Tensor]] = []
    try:
        for module in model.modules():
            for name, value in [*module._parameters.items(), *module._buffers.items()]:
                if value is None or at_least_single(value) is value:
                    continue
                if value not in copies:
                    copies[value] = _single(value)
                originals.append((module, name, value))
                setattr(module, name, copies[value])
        yield
    finally:
        for module, name, value in originals:
            setattr(module, name, value)


def _single(value: Tensor) -> Tensor:
    copy = value.detach().float()
    return nn.Parameter(copy, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else copy
