"""Activations: modules and functions whose argument is a pre-activation."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lnsgd import rng
from lnsgd.models.activations import CubicPlusLinear

ACTIVATION_TYPES: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Hardshrink,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
    nn.Sigmoid,
    nn.LogSigmoid,
    CubicPlusLinear,
)
"""Classes of torch whose modules are activations."""

# How PyTorch calls the functions that it shows to a `TorchFunctionMode`, and how sites are called after them.
_FUNCTIONS = {
    **{
        name: name
        for name in (
            *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish"),
            *("hardswish", "hardsigmoid", "hardtanh", "hardshrink", "softplus", "softshrink", "softsign", "tanh"),
            *("tanhshrink", "threshold", "sigmoid"),
        )
    },
    "log_sigmoid": "logsigmoid",
    "_threshold": "threshold",
    "special_expit": "sigmoid",
    "expit": "sigmoid",
}

# Lower bound 0 makes these functions a ReLU.
_CLAMPS = ("clamp", "clip", "clamp_min")

ACTIVATION_FUNCTIONS: tuple[str, ...] = (*dict.fromkeys(_FUNCTIONS.values()), "clamp")
"""Names of the activation functions, without the underscore of the in-place ones."""

# Modules that apply activations to numbers which are not seen: the gates of recurrent layers are computed in one call.
_HIDING_TYPES = (nn.RNNBase, nn.RNNCellBase, nn.GLU, torch.jit.ScriptModule)
_HIDING_FUNCTIONS = ("glu", "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell")
_LIKE_AN_ACTIVATION = re.compile(r"(?i:relu|[gs]elu|silu|swish|mish|sigmoid|tanh|softplus|activation)|[EG]LU$|Act$")

# Points at which a module of unknown type is tried; in no order, so that sums over them show.
_POINTS = (0.5, -6.0, 3.0, -0.25, 1.0, -1.0, 6.0, 0.0, -3.0, 0.125)


def activation_function(function: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> str | None:
    """Return the name of an activation function of PyTorch, ``None`` for any other function.

    ``F.relu``, ``torch.relu``, ``Tensor.relu`` and ``Tensor.relu_`` are one function, ``relu``. ``clamp`` with the
    lower bound 0 is one too.

    Args:
        function: A function as a ``torch.overrides.TorchFunctionMode`` sees it.
        arguments: Its positional arguments.
        options: Its keyword arguments.

    Example:
        >>> activation_function(torch.Tensor.relu_, (torch.ones(2),), {})
        'relu'
        >>> activation_function(torch.clamp, (torch.ones(2),), {"min": 1e-6}) is None
        True
    """
    name = _plain_name(function)
    if name in _CLAMPS:
        low = arguments[1] if len(arguments) > 1 else options.get("min")
        return "clamp" if isinstance(low, int | float) and low == 0 else None
    return _FUNCTIONS.get(name)


def hides_activations(function: Any) -> bool:
    """Return whether a function of PyTorch applies an activation to numbers that are not its argument.

    Args:
        function: A function as a ``torch.overrides.TorchFunctionMode`` sees it.
    """
    return _plain_name(function) in _HIDING_FUNCTIONS


def _plain_name(function: Any) -> str:
    name = getattr(function, "__name__", "").partition(".")[0]
    return name if name.startswith("_") else name.removesuffix("_")


def is_activation(module: nn.Module) -> bool:
    """Return whether a module is an activation: of a type of ``ACTIVATION_TYPES``, or one that acts as one.

    A module of another package acts as an activation if it has no parts and no weights but single numbers, and maps a
    vector to a vector number by number by a function that is not linear. This is found by calling its ``forward`` on
    two vectors of about ten numbers; modules whose attributes are more than numbers, texts and functions are not tried.

    Args:
        module: Any module; it is left as it was.

    Example:
        >>> class Swish(nn.Module):
        ...     def forward(self, x):
        ...         return x * torch.sigmoid(x)
        >>> is_activation(Swish()), is_activation(nn.Dropout()), is_activation(nn.Softmax(-1))
        (True, False, False)
    """
    if isinstance(module, ACTIVATION_TYPES):
        return True
    return _may_be_tried(module) and _acts_as_activation(module)


def hides_activation(module: nn.Module) -> bool:
    """Return whether a module seems to contain an activation whose pre-activations are not seen.

    These are recurrent layers, gated linear units, TorchScript modules, and modules that have the name of an activation
    and could not be tried, see `is_activation`.

    Args:
        module: A module that `is_activation` does not recognize.
    """
    if isinstance(module, _HIDING_TYPES):
        return True
    named = _LIKE_AN_ACTIVATION.search(type(module).__name__) is not None
    return named and next(module.children(), None) is None and not _may_be_tried(module)


def _may_be_tried(module: nn.Module) -> bool:
    of_torch = type(module).__module__.partition(".")[0] in ("torch", "torchmetrics")
    if of_torch or isinstance(module, Metric) or next(module.children(), None) is not None:
        return False
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    own = {name: value for name, value in vars(module).items() if name not in _BASE_ATTRIBUTES}
    return all(tensor.numel() == 1 for tensor in tensors) and all(map(_is_plain, own.values()))


_BASE_ATTRIBUTES = frozenset(vars(nn.Module()))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    is_object = isinstance(value, nn.Module | Tensor)
    plain = isinstance(value, int | float | complex | str | type(None) | torch.dtype | torch.device)
    return plain or (callable(value) and not is_object)


def _acts_as_activation(module: nn.Module) -> bool:
    some = next(module.parameters(), next(module.buffers(), torch.empty(0)))
    points = torch.tensor(_POINTS, device=some.device)
    with _untouched(module), torch.no_grad():
        try:
            found = module.forward(points.clone())
            others = module.forward(torch.cat([points.flip(0), 3 * points]))
        except Exception:
            return False
    if not all(isinstance(values, Tensor) and values.is_floating_point() for values in (found, others)):
        return False
    if found.shape != points.shape or others.shape != (2 * len(points),) or not found.isfinite().all():
        return False
    by_number = torch.allclose(others[: len(points)].flip(0), found, rtol=1e-4, atol=1e-5)
    slope = (found[4] - found[0]) / (points[4] - points[0])
    line = found[0] + slope * (points - points[0])
    return by_number and not torch.allclose(found, line, rtol=1e-3, atol=1e-3)


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Restore the mode, the plain attributes and the single numbers of a module, and the global random state."""
    before = {name: value for name, value in vars(module).items() if name not in _BASE_ATTRIBUTES}
    training = module.training
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    values = [tensor.detach().clone() for _, tensor in tensors]
    try:
        with rng.preserved():
            module.training = False
            yield
    finally:
        module.training = training
        for name in [name for name in vars(module) if name not in before and name not in _BASE_ATTRIBUTES]:
            delattr(module, name)
        vars(module).update(before)
        for (name, tensor), value in zip(tensors, values):
            setattr(module, name, tensor)
            if not torch.equal(tensor, value):
                tensor.data.copy_(value)
