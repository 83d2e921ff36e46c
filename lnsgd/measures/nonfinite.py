"""Where NaN and infinity come from."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd import rng


def nonfinite_tensors(named: Mapping[str, Any]) -> dict[str, int]:
    """How many entries of each tensor are NaN or infinite, of those tensors that have some.

    Args:
        named: Tensors by name; what is nested in dictionaries and lists is looked at too, and what is no tensor of
            floating-point or complex numbers is left out.

    Returns:
        By name, nested ones as ``a.b.0``, in the given order.

    Example:
        >>> nonfinite_tensors({"w": torch.tensor([1.0, torch.nan]), "b": torch.zeros(2)})
        {'w': 1}
    """
    found = {}
    for name, value in _tensors("", named):
        # The sum of finite numbers may overflow, but that of others is never finite: only then is it worth counting.
        if not value.sum().isfinite() and (count := int((~value.isfinite()).sum())):
            found[name] = count
    return found


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, below in items:
            yield from _tensors(f"{name}.{key}" if name else str(key), below)


def first_nonfinite(model: nn.Module, inputs: Tensor) -> str | None:
    """What in a forward pass is the first to be NaN or infinite, in words; ``None`` where nothing is.

    Looks at parameters and buffers, then at the inputs, then at the outputs of the modules that have none below them,
    in the order of their calls. The model runs in the mode that it is in; its buffers and the random state are put
    back. Dropout drops other units than in a pass before, so that a rare overflow need not come again.

    Args:
        model: Any module that takes ``model(inputs)``.
        inputs: A batch (B, …), on its device.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
        >>> _ = net[0].bias.data.fill_(torch.inf)
        >>> first_nonfinite(net, torch.ones(3, 1))
        '0.bias has 2 entries of 2 that are not finite'
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, count in nonfinite_tensors(state).items():
        return f"{name} has {_entries(count)} of {state[name].numel()} that are not finite"
    if count := nonfinite_tensors({"": inputs}).get("", 0):
        return f"the inputs of the batch have {_entries(count)} that are not finite"
    return _first_output(model, inputs)


def _first_output(model: nn.Module, inputs: Tensor) -> str | None:
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if not found and nonfinite_tensors({"": output}):
                found.append(f"{name or 'the network'} ({type(module).__name__}) gives numbers that are not finite")

        return hook

    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with ExitStack() as stack, torch.no_grad(), rng.preserved():
        for name, module in model.named_modules():
            if not name or next(module.children(), None) is None:
                stack.callback(module.register_forward_hook(look(name)).remove)
        model(inputs)
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return found[0] if found else None


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"
