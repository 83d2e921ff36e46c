"""How a measure calls a network: inputs of any layout in, one tensor of outputs out."""

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from lnsgd import compat
from lnsgd.measures.evaluation import forward_pass

Inputs = Tensor | Mapping[str, Any] | tuple[Any, ...]
"""Inputs of a batch: a tensor, called as ``model(inputs)``; a mapping of tensors, called as ``model(**inputs)``; or a
tuple of tensors, called as ``model(*inputs)``. The first axis of every tensor is the examples."""

OutputsFunction = Callable[[nn.Module, Any], Tensor]
"""How a network is called: ``outputs(network, inputs) -> (B, …)``, such as
``lambda network, inputs: network(**inputs).logits``."""

Batches = Iterable[tuple[Inputs, Tensor]]
"""Batches (inputs, labels) on the model's device."""

REMEDY = "say how the network is called, such as outputs=lambda network, inputs: network.net(inputs)"


def outputs_of(model: nn.Module, inputs: Inputs, outputs: OutputsFunction | None = None) -> Tensor:
    """Compute the outputs of a network, one tensor (B, …).

    This is the default `OutputsFunction`, and also the function by which measures call the one that a user gives. The
    network gets copies of the inputs, so that it may write into them. If a network does not return one tensor, its
    ``logits`` are taken, or else the first floating-point tensor with one row for each example in what it returns; a
    warning says so once. If a network drops the axis of a single example (``squeeze``), the axis is put back.

    Args:
        model: Any module, in the mode in which it is to be measured.
        inputs: Inputs of B examples, see `Inputs`.
        outputs: How the network is called; by default as `Inputs` says.

    Raises:
        ValueError: the network does not take the inputs; or its outputs are not floating-point numbers with the
            examples along their first axis.

    Example:
        >>> import torch
        >>> outputs_of(nn.Identity(), torch.tensor([[1.0], [2.0]]), lambda network, inputs: 3 * network(inputs))
        tensor([[3.],
                [6.]])
    """
    found, examples, name = call_network(model, inputs, outputs), examples_in(inputs), type(model).__name__
    if not isinstance(found, Tensor):
        found = _one_tensor(name, found, examples)
    if not found.is_floating_point():
        raise ValueError(f"{name} gives {found.dtype}; measures need one tensor of floating-point outputs")
    if examples == 1 and (found.ndim == 0 or len(found) != 1):
        found = found[None]
    if found.ndim == 0:
        raise ValueError(f"{name} gives one number for {examples} examples, such as their mean loss; {REMEDY}")
    if len(found) != examples:
        raise ValueError(
            f"{name} gives outputs of shape {tuple(found.shape)} for {examples} examples, which must be along the "
            f"first axis; {REMEDY}"
        )
    return found


def call_network(model: nn.Module, inputs: Inputs, outputs: OutputsFunction | None = None) -> Any:
    """Call a network on copies of inputs and return what it returns, for measures that do not need the outputs.

    Args:
        model: Any module, in the mode in which it is to be measured.
        inputs: See `Inputs`.
        outputs: How the network is called; by default as `Inputs` says.

    Raises:
        ValueError: the network does not take the inputs.
    """
    copies = map_inputs(lambda tensor: tensor.clone(), inputs)
    with forward_pass(model):
        return _called(model, copies, outputs)


def _called(model: nn.Module, copies: Inputs, outputs: OutputsFunction | None) -> Any:
    if outputs is not None and outputs is not outputs_of:
        return outputs(model, copies)
    arguments, options = _bound(model, copies)
    try:
        return model(*arguments, **options)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        # A network that is to be called in another way; any other ValueError has a message of its own.
        if isinstance(error, ValueError) and "unpack" not in str(error):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{type(model).__name__} does not take inputs of {_described(copies)} ({cause}); {REMEDY}"
        ) from error


def functional_outputs(
    model: nn.Module, weights: Mapping[str, Tensor], inputs: Inputs, outputs: OutputsFunction | None = None
) -> Tensor:
    """Compute the outputs that a network has with other weights, for `torch.func` transforms of them.

    Args:
        model: Any module.
        weights: Tensors that replace parameters or buffers of the model, by name; names that wrappers of torch insert,
            such as ``_orig_mod``, may be left out.
        inputs: See `Inputs`.
        outputs: How the network is called, see `outputs_of`.
    """
    full = {compat.plain_name(name): name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    named = {f"model.{full.get(name, name)}": weight for name, weight in weights.items()}
    return functional_call(CalledNetwork(model, outputs), named, (inputs,))


class CalledNetwork(nn.Module):
    """A network together with how it is called, for functions of torch that call a module with one argument.

    Args:
        model: Any module; it stays in its mode.
        outputs: How the network is called, see `outputs_of`.
    """

    def __init__(self, model: nn.Module, outputs: OutputsFunction | None = None) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs
        self.training = model.training

    def forward(self, inputs: Inputs) -> Tensor:
        """Compute the outputs, see `outputs_of`."""
        return outputs_of(self.model, inputs, self.outputs)


def _bound(model: nn.Module, inputs: Inputs) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the positional and keyword arguments of ``forward``.

    A single entry of a mapping whose name ``forward`` does not know is its first argument.
    """
    choices: list[tuple[tuple[Any, ...], Mapping[str, Any]]]
    if isinstance(inputs, Mapping):
        choices = [((), inputs), (tuple(inputs.values()), {})][: 2 if len(inputs) == 1 else 1]
    else:
        choices = [(inputs if isinstance(inputs, tuple) else (inputs,), {})]
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError, AttributeError):  # compiled code and TorchScript need not have one
        return choices[0]
    for arguments, options in choices:
        try:
            signature.bind(*arguments, **options)
        except TypeError:
            continue
        return arguments, options
    raise ValueError(
        f"`forward` of {type(model).__name__} takes {signature}, but the inputs are {_described(inputs)}; say where a "
        "batch has inputs and labels, such as batch=lambda batch: (batch['image'], batch['label']), or how the network "
        "is called by outputs="
    )


def _described(inputs: Inputs) -> str:
    if isinstance(inputs, Mapping):
        return ", ".join(map(repr, inputs))
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(inputs))
    return f"a {'tuple' if isinstance(inputs, tuple) else 'tensor'} of shape {shapes}"


def _one_tensor(name: str, found: Any, examples: int) -> Tensor:
    """Choose the outputs among the tensors that a network returns."""
    logits = found.get("logits") if isinstance(found, Mapping) else getattr(found, "logits", None)
    if isinstance(logits, Tensor):
        _say_once(f"{name} returns a {type(found).__name__}; measured are its `logits`, or what outputs= says")
        return logits
    for key, value in _entries(found).items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim and len(value) == examples:
            _say_once(f"{name} returns a {type(found).__name__}; measured is its entry {key!r}, or what outputs= says")
            return value
    raise ValueError(
        f"{name} gives {type(found).__name__}; measures need one tensor of floating-point outputs: {REMEDY}"
    )


def _entries(found: Any) -> Mapping[Any, Any]:
    if isinstance(found, Mapping):
        return found
    if isinstance(found, tuple | list):
        return dict(enumerate(found))
    fields = dataclasses.fields(found) if dataclasses.is_dataclass(found) else ()
    return {field.name: getattr(found, field.name) for field in fields}


@cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def map_inputs(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Apply a function to each tensor of inputs; entries that are not tensors stay as they are.

    Args:
        function: Function of a tensor.
        inputs: See `Inputs`.

    Returns:
        Inputs of the same layout: a tensor, a ``dict`` or a ``tuple``.
    """
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: function(value) if isinstance(value, Tensor) else value for key, value in inputs.items()}
    return tuple(function(value) if isinstance(value, Tensor) else value for value in inputs)


def tensors_in(inputs: Inputs) -> list[Tensor]:
    """Return the tensors of inputs, in their order.

    Args:
        inputs: See `Inputs`.
    """
    if isinstance(inputs, Tensor):
        return [inputs]
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [value for value in values if isinstance(value, Tensor)]


def one_tensor_of(inputs: Inputs) -> Tensor:
    """Return the only tensor of inputs, for measures that are defined for networks with one input.

    Args:
        inputs: See `Inputs`.

    Raises:
        ValueError: there are several.
    """
    found = tensors_in(inputs)
    if len(found) != 1:
        raise ValueError(f"the inputs are {len(found)} tensors, but this measure is for a network with one input")
    return found[0]


def examples_in(inputs: Inputs) -> int:
    """Return the number of examples B.

    Args:
        inputs: See `Inputs`.

    Raises:
        ValueError: there is no tensor, or the first axes of the tensors differ.
    """
    tensors = tensors_in(inputs)
    sizes = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
    if len(sizes) != 1 or any(tensor.ndim == 0 for tensor in tensors):
        raise ValueError(
            f"inputs of shapes {', '.join(str(tuple(tensor.shape)) for tensor in tensors) or 'none'} do not have the "
            "same number of examples along their first axis; say by batch= which tensors are inputs"
        )
    return sizes.pop()


def split_inputs(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Split inputs into parts of at most ``size`` examples, views of the given tensors.

    Args:
        inputs: See `Inputs`.
        size: Largest number of examples in a part.

    Example:
        >>> import torch
        >>> [part["x"].tolist() for part in split_inputs({"x": torch.arange(3)}, 2)]
        [[0, 1], [2]]
    """
    for start in range(0, examples_in(inputs), size):
        yield map_inputs(lambda tensor, start=start: tensor[start : start + size], inputs)  # type: ignore[misc]


def first_examples(inputs: Inputs, count: int) -> Inputs:
    """Return the first ``count`` examples of inputs, views of the given tensors.

    Args:
        inputs: See `Inputs`.
        count: Number of examples.
    """
    return map_inputs(lambda tensor: tensor[:count], inputs)
