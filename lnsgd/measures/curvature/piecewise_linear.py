"""A test whether a network is piecewise linear in every single one of its weights."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lnsgd import compat
from lnsgd.measures.curvature.graph import inputs_first, operands

# fmt: off
# Autograd's names of operations that are piecewise linear in all operands together; "where" and indexing choose
# between operands.
_LINEAR = frozenset({
    "Abs", "AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AdaptiveMaxPool2D", "Add", "Alias", "Amax",
    "Amin", "AsStrided", "AvgPool2D", "AvgPool3D", "Cat", "Clamp", "ClampMax", "ClampMin", "Clone", "ConstantPadNd",
    "Copy", "Diagonal", "Embedding", "Expand", "Flip", "Gather", "Hardsigmoid", "Hardtanh", "Index", "IndexSelect",
    "LeakyRelu", "MaskedFill", "Max", "Maximum", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "Mean", "Min",
    "Minimum", "MkldnnAdaptiveAvgPool2D", "Neg", "Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad1D",
    "ReflectionPad2D", "Relu", "Repeat", "ReplicationPad1D", "ReplicationPad2D", "Reshape", "ReshapeAlias", "Roll",
    "RreluWithNoise", "Rsub", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "Sub", "Sum", "T",
    "Threshold", "ToCopy", "Transpose", "Unbind", "Unfold", "UnsafeSplit", "UnsafeView", "Unsqueeze",
    "UpsampleBilinear2D", "UpsampleNearest2D", "View", "Where", "Zero",
})

# Operations that are linear in each operand with the others fixed: f·g is linear in a weight that only f depends on.
_MULTILINEAR = frozenset({
    "Addbmm", "Addmm", "Addmv", "Baddbmm", "Bmm", "Convolution", "CudnnConvolution", "Dot", "Einsum", "EmbeddingBag",
    "Linear", "MkldnnConvolution", "MkldnnLinear", "Mm", "Mul", "Mv", "Prelu", "PreluKernel", "SlowConv2D",
    "ThnnConv2D",
})
# fmt: on

# Operations that are linear in each operand as long as they use running statistics.
_NORMS = frozenset({"BatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeBatchNorm"})


class Trace:
    """The modules of a forward pass, in the order in which they ended.

    Attributes:
        ended: Name and kind of each module, its inputs' and its outputs' nodes in the autograd graph.
    """

    def __init__(self) -> None:
        self.ended: list[tuple[str, list[Any], list[Any]]] = []


@contextmanager
def traced(model: nn.Module) -> Iterator[Trace]:
    """Record where in the autograd graph each module begins and ends."""
    trace = Trace()
    begun: list[list[Any]] = []  # of modules that have not ended

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Before the module runs, because it may change its input in place.
        begun.append(_nodes([*args, *kwargs.values()]))

    def end(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            place = f"{name} ({type(module).__name__})" if name else type(module).__name__
            trace.ended.append((place, begun.pop(), _nodes(output if isinstance(output, tuple) else [output])))

        return hook

    handles = []
    for name, module in model.named_modules():
        if compat.is_torchscript(module):
            continue
        handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        handles.append(module.register_forward_hook(end(compat.plain_name(name))))
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()


def _nodes(values: Iterable[Any]) -> list[Any]:
    return [value.grad_fn for value in values if isinstance(value, Tensor) and value.grad_fn is not None]


def bent_operation(outputs: Tensor, named: Mapping[str, nn.Parameter]) -> Any | None:
    """Find the first operation by which outputs are not piecewise linear in some single entry of θ.

    A product is allowed if no tensor of θ reaches two of its factors, so that a weight that is used twice in a row is
    found as well as a tanh. The second derivative of a piecewise linear function is zero except at its kinks, so that
    the diagonal of the Hessian equals that of the Gauss–Newton matrix.

    Args:
        outputs: Outputs with their autograd graph.
        named: θ by name.

    Returns:
        The operation's node in the graph, or ``None`` if there is no such operation.
    """
    return next((node for node, is_allowed in _Walk(outputs, named).reaching() if not is_allowed), None)


def linear_part(outputs: Tensor, named: Mapping[str, nn.Parameter]) -> list[GradientEdge] | None:
    """Find values z in the graph that are piecewise linear in every single entry of θ, and of which outputs are made.

    Mostly these are the outputs. If a network ends in a log-softmax, z are the logits: outputs are a function of z
    without weights, which may be bent.

    Args:
        outputs: Outputs with their autograd graph.
        named: θ by name.

    Returns:
        The edges of z in the graph, none if outputs do not depend on θ; ``None`` if there are no such values, because
        there are weights behind an operation by which outputs are not piecewise linear.
    """
    if outputs.grad_fn is None:
        return []
    walk = _Walk(outputs, named)
    behind: set[Any] = set()  # nodes behind an operation that is not piecewise linear
    edges: dict[tuple[Any, int], GradientEdge] = {}
    for node, is_allowed in walk.reaching():
        if is_allowed and not any(operand in behind for operand in operands(node)):
            continue
        behind.add(node)
        for operand, number in node.next_functions:
            if operand is not None and walk.reached[operand] and operand not in behind:
                if walk.is_parameter(operand):
                    return None
                edges[operand, number] = GradientEdge(operand, number)
    if outputs.grad_fn in behind:
        return list(edges.values())
    return [get_gradient_edge(outputs)] if walk.reached[outputs.grad_fn] else []


class _Walk:
    """A walk over the graph of outputs, each node after its operands.

    Attributes:
        reached: Which tensors of θ a node depends on, as bits.
    """

    def __init__(self, outputs: Tensor, named: Mapping[str, nn.Parameter]) -> None:
        self._root = outputs.grad_fn
        self._bits = {id(p): 1 << k for k, p in enumerate(named.values())}
        self.reached: dict[Any, int] = {}

    def is_parameter(self, node: Any) -> bool:
        """Return whether a node stands for a tensor of θ."""
        return id(getattr(node, "variable", None)) in self._bits

    def reaching(self) -> Iterator[tuple[Any, bool]]:
        """Yield the nodes that depend on θ through operands, and whether each is piecewise linear by itself."""
        for node in inputs_first(self._root):
            union = 0
            overlap = False
            for operand in operands(node):
                overlap |= bool(union & self.reached[operand])
                union |= self.reached[operand]
            self.reached[node] = union | self._bits.get(id(getattr(node, "variable", None)), 0)
            if union:
                yield node, _allowed(node, overlap)


def operation(node: Any) -> str:
    """Return autograd's name of a node's operation."""
    return re.sub(r"Backwards?\d*$", "", node.name().rsplit("::", 1)[-1])


def place_of(node: Any, trace: Trace) -> str:
    """Return the name of the innermost module in which a node was made."""
    for place, starts, ends in trace.ended:
        if any(node in inputs_first(end, stop=starts) for end in ends):
            return place
    return "the model"


def _allowed(node: Any, overlap: bool) -> bool:
    if isinstance(node, BackwardCFunction):  # a user's own operation, whatever its name
        return False
    kind = operation(node)
    if kind in _LINEAR:
        return True
    if kind in _NORMS:
        return not overlap and not compat.saved_training_mode(node)
    if kind == "Div":
        return all(divisor is None for divisor, _ in node.next_functions[1:])
    return kind in _MULTILINEAR and not overlap
