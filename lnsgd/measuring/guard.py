"""Whether a network, its data and its loss can be measured, found out on a few examples before the first measure."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lnsgd import compat
from lnsgd.measures.evaluation import check_real, state_written, trainable
from lnsgd.measures.forward import (
    REMEDY,
    Inputs,
    OutputsFunction,
    call_network,
    map_inputs,
    outputs_of,
)
from lnsgd.measures.labels import check_examples_apart, example_losses
from lnsgd.measuring.context import Context, Split
from lnsgd.measuring.source import Source
from lnsgd.measuring.subject import PerExampleLoss, Subject

if TYPE_CHECKING:
    from lnsgd.measuring.measurer import Measurer

# Examples of each process in the first of the two forward passes; the second has two of them, in another order.
_EXAMPLES = 4

# Largest difference of equal numbers, relative to the largest number: batches of other sizes are summed in another
# order, and a network may compute in lower precision within.
_TOLERANCE = 1e-3


def check_measurable(measurer: "Measurer", subject: Subject, source: Source, context: Context) -> None:
    """Check, once in a context, on the first data of each split that a measurer can measure a network on it.

    Two forward passes of a few examples show whether the network is one function of each example: the same numbers for
    the same example, also in another batch and at another place in it. The loss must be so too, if the measurer needs
    one. Call this function in `lnsgd.measures.evaluation_mode`, on all processes.

    Args:
        measurer: What measures. Its `lnsgd.measuring.Measurer.needs` say what is checked.
        subject: The network.
        source: Where the data comes from.
        context: Where it is measured; what was checked is kept in ``context.loaded``.

    Raises:
        ValueError: the measure would mean nothing; the message says why, for which module, and what to do.
    """
    done = context.loaded.checked.setdefault(subject.module, {})
    key = type(measurer), source, tuple(measurer.measured_splits), id(getattr(measurer, "loss", None))
    if key in done:
        return
    problem: ValueError | None = None
    try:
        _check_whole(subject.module)
        if measurer.needs & {"gradients", "products"}:
            check_real(trainable(subject.module))
        for split in measurer.measured_splits:
            _check_split(measurer, split, subject, source, context)
    except ValueError as error:
        problem = error
    # The other processes have other examples; all must stop or none.
    found = torch.tensor([float(problem is not None)], device=context.device)
    if context.share.world > 1 and context.largest(found).item() and problem is None:
        problem = ValueError("another process has found that this cannot be measured; its message says why")
    if problem is not None:
        raise problem
    done[key] = None


def _check_whole(network: nn.Module) -> None:
    if (kind := compat.sharding(network)) is not None:
        raise ValueError(
            f"the weights of {type(network).__name__} are divided among processes ({kind}), and measures need the "
            "whole network in each of them; train it with DistributedDataParallel, or measure a copy with all weights"
        )


def _check_split(measurer: "Measurer", split: Split, subject: Subject, source: Source, context: Context) -> None:
    limit, world = measurer.examples_of(split), context.share.world
    few = _EXAMPLES * world if limit is None or limit > _EXAMPLES * world else limit
    done = context.loaded.checked[subject.module]
    needs_outputs = "outputs" in measurer.needs
    key = source, split, few, needs_outputs
    if key not in done:
        # What is read to its end is kept, so that other measurers do not read it again.
        (inputs, labels), *_ = source.batches(subject, split, few, context)
        done[key] = _Looked(_Passes(subject.module, needs_outputs, source.outputs, inputs, labels))
    looked: _Looked = done[key]
    if looked.differ:
        looked.passes.explain(measurer, context)
    if "loss" in measurer.needs:
        _check_loss(subject.loss(getattr(measurer, "loss", None)), looked)


def _check_loss(loss: PerExampleLoss, looked: "_Looked") -> None:
    labels = looked.passes.labels
    example_losses(loss, looked.found, labels)
    check_examples_apart(loss, looked.found, labels)


class _Call(NamedTuple):
    """A call of a module without submodules in a forward pass: its name and class, its inputs and its outputs."""

    name: str
    kind: str
    inputs: Any
    outputs: Any

    def of(self, which: Sequence[int], examples: int) -> "_Call":
        """Return what belongs to some of the examples."""
        return self._replace(inputs=_rows(self.inputs, which, examples), outputs=_rows(self.outputs, which, examples))


class _Passes:
    """Forward passes of examples, each example with others.

    Args:
        network: The network.
        needs_outputs: Whether one tensor of outputs is needed, or a forward pass is enough.
        outputs: How the network is called.
        inputs: Inputs of a few examples.
        labels: Their labels.
    """

    def __init__(
        self, network: nn.Module, needs_outputs: bool, outputs: OutputsFunction, inputs: Inputs, labels: Tensor
    ) -> None:
        self.labels = labels
        self._network = network
        self._call: Callable[..., Any] = outputs_of if needs_outputs else call_network
        self._outputs = outputs
        self._inputs = inputs

    def run(self, which: Sequence[int]) -> Any:
        """Return what the network gives for some of the examples."""
        chosen = list(which)
        inputs = map_inputs(lambda tensor: tensor[chosen], self._inputs)
        return self._call(self._network, inputs, self._outputs)

    def explain(self, measurer: "Measurer", context: Context) -> None:
        """Raise the error for a network that is not one function of each example.

        Raises:
            ValueError: always, unless a network that updates its own statistics is only looked at.
        """
        name, every = type(self._network).__name__, range(len(self.labels))
        first, second = self._calls(every), self._calls(every)
        if (place := _first_difference(first, second)) is not None:
            raise ValueError(
                f"{name} gives other outputs for the same inputs in eval mode: {place}; what is random must stop in "
                "eval mode, such as torch.nn.functional.dropout(x, p, training=self.training)"
            )
        again = _others(len(self.labels))
        place = _first_difference([call.of(again, len(self.labels)) for call in first], self._calls(again))
        if place is None:
            return  # a difference of what only the first passes have done
        written = state_written()
        if written and not _normalized(self._network, written) and not measurer.needs & {"gradients", "products"}:
            context.log_message(
                f"{name} updates {', '.join(sorted(written))} in eval mode, from all examples of a batch: what is "
                "measured depends on how the data is divided into batches"
            )
            return
        raise ValueError(
            f"the outputs of {name} for an example depend on the other examples of its batch, or do not have the "
            f"examples along their first axis: {place}; a batch normalization must use running statistics in eval "
            f"mode; for examples along another axis, {REMEDY}"
        )

    def _calls(self, which: Sequence[int]) -> list[_Call]:
        calls: list[_Call] = []

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, arguments: Any, options: Mapping[str, Any], output: Any) -> None:
                given = _copied([*_tensors(arguments), *_tensors(options)])
                calls.append(_Call(compat.plain_name(name), type(module).__name__, given, _copied(_tensors(output))))

            return hook

        named = self._network.named_modules()
        leaves = [
            (name, module)
            for name, module in named
            if next(module.children(), None) is None and not compat.is_torchscript(module)
        ]
        handles = [module.register_forward_hook(watch(name), with_kwargs=True) for name, module in leaves]
        try:
            found = self.run(which)
        finally:
            for handle in handles:
                handle.remove()
        return [*calls, _Call("", type(self._network).__name__, [], _copied(_tensors(found)))]


def _normalized(network: nn.Module, written: frozenset[str]) -> bool:
    """Return whether a batch normalization is in training mode, and so has updated its running statistics."""
    normalizations = (name for name, m in network.named_modules() if isinstance(m, compat.batch_norm_base()))
    return any(f"{compat.plain_name(name)}.running_mean" in written for name in normalizations)


class _Looked:
    """Results of the two passes.

    Args:
        passes: The passes to make.

    Attributes:
        passes: The passes.
        found: What the network gives for all examples.
        again: Numbers of the examples of the second pass; empty if there are too few.
        differ: Whether an example had other outputs in the second pass.
    """

    def __init__(self, passes: _Passes) -> None:
        self.passes = passes
        self.found = passes.run(range(len(passes.labels)))
        self.again = _others(len(passes.labels))
        self.differ = bool(self.again) and _differ(
            _rows(self.found, self.again, len(passes.labels)), passes.run(self.again)
        )


def _others(examples: int) -> list[int]:
    """Return which examples the second pass has, in its order."""
    return [2, 0] if examples > 2 else [1] * (examples - 1)


def _first_difference(first: list[_Call], second: list[_Call]) -> str | None:
    """Say where two forward passes of the same examples differ first."""
    before = "the inputs"
    for one, other in zip(first, second):
        where = f"{one.name} ({one.kind})" if one.name else "the outputs"
        if (one.name, one.kind) != (other.name, other.kind):
            return f"other modules are called after {before}"
        if _differ(one.inputs, other.inputs) or (not one.name and _differ(one.outputs, other.outputs)):
            return f"the first difference is between {before} and {where}, in something that is not a module"
        if _differ(one.outputs, other.outputs):
            return f"the first difference is in {where}"
        before = where
    return None


def _rows(found: Any, which: Sequence[int], examples: int) -> Any:
    """Return what belongs to some examples, ``None`` for what does not have the examples along its first axis."""
    if isinstance(found, Tensor):
        return found[list(which)] if found.ndim and len(found) == examples else None
    return [_rows(tensor, which, examples) for tensor in _tensors(found)]


def _differ(one: Any, other: Any) -> bool:
    """Return whether numbers differ by more than rounding; what cannot be compared does not."""
    if isinstance(one, list):
        return any(_differ(a, b) for a, b in zip(one, _tensors(other)))
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)) or one.shape != other.shape or not one.numel():
        return False
    if not (one.is_floating_point() or one.is_complex()):
        return False
    low = max(torch.finfo(one.dtype).eps, torch.finfo(other.dtype).eps)
    a, b = (t.detach().to(torch.complex128 if t.is_complex() else torch.float64) for t in (one, other))
    finite = a.isfinite() & b.isfinite()
    a, b = a[finite], b[finite]
    if not a.numel():
        return False
    return bool((a - b).abs().max() > max(_TOLERANCE, 8 * low) * max(a.abs().max(), b.abs().max()))


def _tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, Mapping):
        return [tensor for value in found.values() for tensor in _tensors(value)]
    return [tensor for value in found for tensor in _tensors(value)] if isinstance(found, list | tuple) else []


def _copied(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]
