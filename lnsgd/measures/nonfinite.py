"""Numbers that are NaN or infinite: whether there are any, and which tensor has them first."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd import compat, rng
from lnsgd.measures.forward import Inputs, call_network
from lnsgd.measures.precision import as_real


class NonFiniteError(ValueError):
    """A weight, an input, a loss or a derivative is NaN or infinite, as after divergence."""


def is_finite(model: nn.Module) -> bool:
    """Say whether all parameters and buffers of a model are finite.

    The outputs of a model need not show that a weight is not finite: a ReLU turns −∞ into zero. Measures of a model
    that is not finite are NaN.
    """
    values = (value.detach() for value in (*model.parameters(), *model.buffers()) if _may_be_nonfinite(value))
    return all(bool(_finite_sums(as_real(value.reshape(1, -1)))) for value in values)


def finite_examples(*columns: Tensor) -> Tensor:
    """Say which examples have finite numbers only.

    Args:
        columns: Real or complex numbers of each example, shape (B, …); integers count as finite.

    Returns:
        Boolean, shape (B,).

    Example:
        >>> finite_examples(torch.tensor([[1.0, 2.0], [3.0, torch.inf]]), torch.tensor([0, 1]))
        tensor([ True, False])
    """
    finite = torch.ones(len(columns[0]), dtype=torch.bool, device=columns[0].device)
    for column in columns:
        if _may_be_nonfinite(column):
            finite = finite & _finite_sums(as_real(column.detach()[:, None]))
    return finite


def _may_be_nonfinite(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _finite_sums(rows: Tensor) -> Tensor:
    """Say whether the sum of each row of (B, n) is finite, in one pass; a test of every number takes two.

    In double precision, a sum of finite single-precision numbers does not overflow.
    """
    return rows.sum(1, dtype=torch.float64).isfinite()


def nonfinite_tensors(named: Mapping[str, Any]) -> dict[str, int]:
    """Count the entries of each tensor that are NaN or infinite.

    Args:
        named: Tensors by name; tensors nested in mappings, sequences and dataclasses are counted too, and values that
            are not tensors of floating-point or complex numbers are left out.

    Returns:
        Numbers of such entries by name (``a.b.0`` for a nested tensor) in the given order, without the tensors that
        have none.

    Example:
        >>> nonfinite_tensors({"w": torch.tensor([1.0, torch.nan]), "b": torch.zeros(2)})
        {'w': 1}
    """
    found = {}
    for name, value in _tensors("", named):
        # A finite sum has finite terms only; a sum that is not finite may have overflowed, so that its terms count.
        if not value.sum().isfinite() and (count := int((~value.isfinite()).sum())):
            found[name] = count
    return found


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if _may_be_nonfinite(value):
            yield name, value
        return
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, below in items:
            yield from _tensors(f"{name}.{key}" if name else str(key), below)


def first_nonfinite(model: nn.Module, inputs: Inputs) -> str | None:
    """Find the first tensor of a forward pass that is NaN or infinite.

    Looks at parameters and buffers, then at the inputs, then at the outputs of the modules without submodules in the
    order of their calls. The model runs in its present mode; its buffers and the random state are restored. Dropout
    drops other units than in an earlier pass, so that a rare overflow may not occur again.

    Args:
        model: Any module.
        inputs: Inputs of a batch, on its device, see `lnsgd.measures.Inputs`.

    Returns:
        A sentence that names the tensor, or ``None`` if all are finite.

    Raises:
        ValueError: the model does not take the inputs.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
        >>> first_nonfinite(net, {"image": torch.ones(3, 1), "mask": torch.full((3,), torch.nan)})
        "'mask' of the batch has 3 entries that are not finite"
        >>> _ = net[0].bias.data.fill_(torch.inf)
        >>> first_nonfinite(net, torch.ones(3, 1))
        '0.bias has 2 entries of 2 that are not finite'
    """
    batch = [inputs] if isinstance(inputs, tuple) else inputs
    return nonfinite_state(model) or nonfinite_batch(batch) or _first_output(model, inputs)


def nonfinite_state(model: nn.Module) -> str | None:
    """Name the first parameter or buffer of a model that is NaN or infinite; ``None`` if all are finite.

    Args:
        model: Any module.
    """
    state = {compat.plain_name(name): value for name, value in (*model.named_parameters(), *model.named_buffers())}
    for name, count in nonfinite_tensors(state).items():
        return f"{name} has {_entries(count, f' of {state[name].numel()}')}"
    return None


def nonfinite_batch(batch: Any) -> str | None:
    """Name the first tensor of a batch that is NaN or infinite; ``None`` if all are finite.

    Args:
        batch: A tensor, or any nesting of mappings, sequences and dataclasses, such as ``(inputs, labels)``.

    Example:
        >>> nonfinite_batch([{"image": torch.zeros(2), "mask": torch.tensor([1.0, torch.inf])}, torch.zeros(2)])
        "'0.mask' of the batch has 1 entry that is not finite"
    """
    usual = (
        {"": "the inputs"} if isinstance(batch, Mapping) else {"": "the inputs", "0": "the inputs", "1": "the labels"}
    )
    for name, count in nonfinite_tensors({"": batch}).items():
        what = f"{usual[name]} of the batch have" if name in usual else f"{name!r} of the batch has"
        return f"{what} {_entries(count)}"
    return None


def _first_output(model: nn.Module, inputs: Inputs) -> str | None:
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if not found and nonfinite_tensors({"": output}):
                found.append(f"{name or 'the network'} ({type(module).__name__}) gives numbers that are not finite")

        return hook

    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with ExitStack() as stack, torch.no_grad(), rng.preserved():
        for name, value in model.named_buffers():
            stack.callback(value.copy_, buffers[name])
        for name, module in model.named_modules():
            if compat.is_torchscript(module):  # it takes no hooks
                continue
            if not name or next(module.children(), None) is None:
                stack.callback(module.register_forward_hook(watch(compat.plain_name(name))).remove)
        call_network(model, inputs)
    return found[0] if found else None


def _entries(count: int, of: str = "") -> str:
    return f"1 entry{of} that is not finite" if count == 1 else f"{count} entries{of} that are not finite"
