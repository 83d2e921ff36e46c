"""At least single precision, whatever precision a network computes in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def at_least_single(values: Tensor) -> Tensor:
    """Convert half-precision values (float16, bfloat16) to float32; return all others as they are.

    Example:
        >>> at_least_single(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return values.float() if values.dtype.is_floating_point and values.dtype.itemsize < 4 else values


def in_double(values: Tensor) -> Tensor:
    """Return a tensor in double precision, detached; a complex one stays complex.

    Example:
        >>> in_double(torch.ones(1, dtype=torch.complex64)).dtype
        torch.complex128
    """
    return values.detach().to(torch.complex128 if values.is_complex() else torch.float64)


def as_real(rows: Tensor) -> Tensor:
    """Return rows (n, …) as real matrix (n, k); a complex number is two columns, its real and imaginary part.

    Example:
        >>> as_real(torch.tensor([[1.0 + 2.0j]]))
        tensor([[1., 2.]])
    """
    return (torch.view_as_real(rows.resolve_conj()) if rows.is_complex() else rows).flatten(1)


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Turn autocast off, and make new tensors float32 if the default type is a half-precision one.

    Args:
        device_type: Type of the device whose autocast is turned off, such as ``cpu``.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(default, torch.float32))
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(default)


@contextmanager
def single_precision_weights(model: nn.Module) -> Iterator[None]:
    """Replace half-precision parameters and buffers by float32 copies; on exit, put the same tensors back.

    The model computes the same function in finer arithmetic. A tensor that is shared by modules stays shared.

    Args:
        model: Any module.
    """
    copies: dict[Tensor, Tensor] = {}
    originals: list[tuple[nn.Module, str, Tensor]] = []
    try:
        for module in model.modules():
            parameters = module.named_parameters(recurse=False, remove_duplicate=False)
            buffers = module.named_buffers(recurse=False, remove_duplicate=False)
            for name, value in [*parameters, *buffers]:
                if at_least_single(value) is value:
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
