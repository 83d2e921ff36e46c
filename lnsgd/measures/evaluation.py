"""Evaluation of a network on data: the data, the part of it that a process holds, and a mode that changes nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lnsgd import compat, rng
from lnsgd.measures.state import Contents, Holdings, Place, TensorContent

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Loss of every example: ``loss(outputs, labels) -> (B,)``."""


@dataclass(frozen=True)
class Share:
    """The part of the data that this process holds, if several processes take a measure together.

    Attributes:
        rank: Number of this process. It holds the examples rank, rank + world, … of every batch.
        world: Number of processes.
        reduce: Sums a tensor over all processes.
    """

    rank: int = 0
    world: int = 1
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums


WHOLE = Share()
"""All of the data, in one process."""


class _Evaluation:
    """Lets all forward passes of a network start from the same state, and at the end puts that state back.

    What a forward pass writes shows in the first one; only that is looked at in the later ones. Where gradients are on,
    a tensor that was written may be part of the graph of its pass, so that it is left alone until the end, and later
    passes get others with the numbers from before.

    Args:
        model: The network.
        around: Networks that are left alone around this evaluation, with their contents.
    """

    def __init__(self, model: nn.Module, around: tuple[tuple[nn.Module, Contents], ...]) -> None:
        self.model = model
        self._known = [contents for network, contents in around if any(m is model for m in network.modules())]
        self._holdings = Holdings(model)
        self._contents: Contents | None = None
        self._written: frozenset[str] | None = None
        self._passes: list[tuple[Holdings, Contents] | None] = []
        self._pending: list[Callable[[], None]] = []
        self._stand_ins: dict[str, tuple[Place, TensorContent]] = {}

    @property
    def written(self) -> frozenset[str]:
        """Names of what the first forward pass has written; empty before."""
        return self._written or frozenset()

    def settle(self) -> None:
        """Put back the attributes that a forward pass has left to be read."""
        while self._pending:
            self._pending.pop()()

    def begin_pass(self) -> None:
        """Record what a forward pass may write; a pass within another one is part of that."""
        if self._passes:
            self._passes.append(None)
            return
        self.settle()
        for place, content in self._stand_ins.values():
            place.put(content.stand_in())
        if self._written == frozenset():
            self._passes.append(None)
            return
        holdings = Holdings(self.model)
        only = None if self._written is None else self._written - self._stand_ins.keys()
        contents = Contents(holdings, self._known, only)
        if self._written is None:
            self._contents = contents
        self._passes.append((holdings, contents))

    def end_pass(self) -> None:
        """Put back what the forward pass has written."""
        recorded = self._passes.pop()
        if recorded is None:
            return
        holdings, contents = recorded
        names = set()
        for place, before in holdings.changed():
            names.add(place.name)
            if place.is_registered:
                place.put(before)
            else:  # the measure may read it, such as features that a network keeps
                self._pending.append(partial(place.put, before))
        self._pending += holdings.refills()
        for place, content in self._stand_ins.values():
            place.put(content.tensor)
        for changed in contents.changed():
            names.add(changed.name)
            if torch.is_grad_enabled() and isinstance(changed, TensorContent):
                self._replace(changed, holdings.places_of(changed.tensor))
            else:
                changed.put_back()
        if self._written is None:
            self._written = frozenset(names)

    def _replace(self, content: TensorContent, places: list[Place]) -> None:
        """Leave a tensor that was written to its graph; a parameter must stay where it is between the passes."""
        for place in places:
            if content.tensor.requires_grad:
                self._stand_ins[place.name] = place, content
            else:
                place.put(content.stand_in())
        if not places:  # within a list, for example
            content.put_back()

    def end(self) -> None:
        """Put back what the forward passes have written."""
        self._holdings.put_back()
        if self._contents is not None:
            # Where the network is left alone around this evaluation, everything is looked at again there.
            for content in self._contents.changed(self._written if self._known else None):
                content.put_back()


# The networks that are left alone at present, with their contents, and the innermost evaluation.
_left_alone: ContextVar[tuple[tuple[nn.Module, Contents], ...]] = ContextVar("left_alone", default=())
_innermost: ContextVar[_Evaluation | None] = ContextVar("innermost", default=None)


def state_written() -> frozenset[str]:
    """Return which tensors, attributes and generators of the network the forward passes of `evaluation_mode` write."""
    evaluation = _innermost.get()
    return frozenset() if evaluation is None else evaluation.written


@contextmanager
def forward_pass(model: nn.Module) -> Iterator[None]:
    """Say that what is within is one forward pass of a model, whichever of its modules are called.

    In `evaluation_mode`, each pass starts from the same parameters, buffers and attributes. A call of the model itself
    is known to be a pass.

    Args:
        model: Any module.
    """
    evaluation = _innermost.get()
    if evaluation is None or evaluation.model is not model:
        yield
        return
    evaluation.begin_pass()
    try:
        yield
    finally:
        evaluation.end_pass()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and leave no trace of what is computed with it.

    On exit, each module has its own mode again, and the global random state is restored. What forward passes write into
    parameters, buffers or attributes of modules, such as ``torch.nn.Embedding(max_norm=1.0)`` or running statistics
    that a module updates itself, is put back bit for bit, and every pass within starts from the same state, so that the
    model is one function. This takes the memory of one copy of the model. Modules that `torch.compile` has compiled are
    computed by PyTorch's own operations, which have second derivatives and call hooks. What a LightningModule logs goes
    nowhere.

    Args:
        model: Any module.
    """
    with compat.without_logging(model), _evaluation(model):
        yield


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    if (around := _innermost.get()) is not None and around.model is model:
        around.settle()
    evaluation = _Evaluation(model, _left_alone.get())
    innermost = _innermost.set(evaluation)

    def begin(*_: Any) -> None:
        if _innermost.get() is evaluation:
            evaluation.begin_pass()

    def end(*_: Any) -> None:
        if _innermost.get() is evaluation:
            evaluation.end_pass()

    hooks = []
    if not compat.is_torchscript(model):
        hooks = [model.register_forward_pre_hook(begin), model.register_forward_hook(end, always_call=True)]
    try:
        with rng.preserved(), compat.without_compiled_code():
            model.eval()
            yield
    finally:
        for hook in hooks:
            hook.remove()
        _innermost.reset(innermost)
        evaluation.end()
        for module, training in modes:
            module.training = training


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Put back, on exit, all parameters, buffers and attributes of a model's modules, whoever has changed them.

    Args:
        model: Any module.
    """
    holdings = Holdings(model)
    contents = Contents(holdings)
    around = _left_alone.set((*_left_alone.get(), (model, contents)))
    try:
        yield
    finally:
        _left_alone.reset(around)
        holdings.put_back()
        for content in contents.changed():
            content.put_back()


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that need a gradient, by name, without the names that wrappers of torch insert.

    Raises:
        ValueError: the model has no such parameter.
    """
    named = {compat.plain_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError(f"{type(model).__name__} has no trainable parameter (requires_grad is False for all)")
    return named


def check_real(named: Mapping[str, Tensor]) -> None:
    """Check that parameters by which a loss is differentiated are real.

    Raises:
        ValueError: a parameter is complex; the message names it.
    """
    for name, value in named.items():
        if value.is_complex():
            raise ValueError(
                f"{name} is complex ({value.dtype}), and derivatives are taken by real parameters only; give the "
                "network its real and imaginary parts as two parameters, or leave the measure out"
            )


def check_per_example(losses: Tensor, examples: int) -> Tensor:
    """Return losses, shape (B,), as they are.

    Raises:
        ValueError: the losses are not one number for each example, such as their mean.
    """
    if losses.shape != (examples,):
        raise ValueError(
            f"the loss gives shape {tuple(losses.shape)} for {examples} examples; it must be per example: give a loss= "
            "such as torch.nn.CrossEntropyLoss(reduction='none')"
        )
    return losses
