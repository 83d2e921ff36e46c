"""Whether a network is piecewise linear in every single one of its weights."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from lnsgd.measures.curvature.graph import inputs_first, operands

# fmt: off
# What autograd calls the operations that are piecewise linear in all operands together; "where" and
# indexing choose between them.
_LINEAR = frozenset({
    "Abs", "AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AdaptiveMaxPool2D", "Add", "Alias", "Amax",
    "Amin", "AsStrided", "AvgPool2D", "AvgPool3D", "Cat", "Clamp", "ClampMax", "ClampMin", "Clone", "ConstantPadNd",
    "Copy", "Diagonal", "Embedding", "Expand", "Flip", "Gather", "Hardtanh", "Index", "IndexSelect", "LeakyRelu",
    "MaskedFill", "Max", "Maximum", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "Mean", "Min", "Minimum",
    "MkldnnAdaptiveAvgPool2D", "Neg", "Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad1D", "ReflectionPad2D",
    "Relu", "Repeat", "ReplicationPad1D", "ReplicationPad2D", "Reshape", "ReshapeAlias", "Roll", "RreluWithNoise",
    "Rsub", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "Sub", "Sum", "T", "Threshold", "ToCopy",
    "Transpose", "Unbind", "Unfold", "UnsafeSplit", "UnsafeView", "Unsqueeze", "UpsampleBilinear2D",
    "UpsampleNearest2D", "View", "Where", "Zero",
})

# Those that are linear in each operand with the others fixed: f·g is linear in a weight that only f depends on.
_MULTILINEAR = frozenset({
    "Addbmm", "Addmm", "Addmv", "Baddbmm", "Bmm", "Convolution", "CudnnConvolution", "Dot", "Einsum", "Linear",
    "MkldnnConvolution", "MkldnnLinear", "Mm", "Mul", "Mv", "Prelu", "PreluKernel", "SlowConv2D", "ThnnConv2D",
})
# fmt: on

# The same, as long as they use running statistics.
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
    """Notes where in the autograd graph each module begins and ends."""
    trace = Trace()
    begun: list[list[Any]] = []  # of modules that have not ended

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Before the module runs, for it may change its input in place.
        begun.append(_nodes([*args, *kwargs.values()]))

    def end(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            place = f"{name} ({type(module).__name__})" if name else type(module).__name__
            trace.ended.append((place, begun.pop(), _nodes(output if isinstance(output, tuple) else [output])))

        return hook

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        handles.append(module.register_forward_hook(end(name)))
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()


def _nodes(values: Iterable[Any]) -> list[Any]:
    return [value.grad_fn for value in values if isinstance(value, Tensor) and value.grad_fn is not None]


def bent_operation(outputs: Tensor, named: Mapping[str, nn.Parameter]) -> Any | None:
    """The first operation by which outputs are not piecewise linear in some single entry of θ.

    Every entry of every tensor alone: a product is allowed where no tensor of θ reaches two of its factors,
    so a weight that is used twice in a row is found as well as a tanh. Piecewise linear functions have no
    second derivative but at their kinks, so that the diagonal of the Hessian is that of the Gauss–Newton matrix.

    Args:
        outputs: Outputs with their autograd graph.
        named: θ.

    Returns:
        The node of the graph, or ``None``.
    """
    bits = {id(p): 1 << k for k, p in enumerate(named.values())}
    reached: dict[Any, int] = {}  # which tensors of θ a node depends on
    for node in inputs_first(outputs.grad_fn):
        union = 0
        overlap = False
        for operand in operands(node):
            overlap |= bool(union & reached[operand])
            union |= reached[operand]
        reached[node] = union | bits.get(id(getattr(node, "variable", None)), 0)
        if union and not _allowed(node, overlap):
            return node
    return None


def operation(node: Any) -> str:
    """What autograd calls a node's operation."""
    return re.sub(r"Backwards?\d*$", "", node.name().rsplit("::", 1)[-1])


def place_of(node: Any, trace: Trace) -> str:
    """The innermost module in which a node was made."""
    for place, starts, ends in trace.ended:
        if any(node in inputs_first(end, stop=starts) for end in ends):
            return place
    return "the model"


def _allowed(node: Any, overlap: bool) -> bool:
    if isinstance(node, BackwardCFunction):  # a user's own, whatever its name
        return False
    kind = operation(node)
    if kind in _LINEAR:
        return True
    if kind in _NORMS:
        return not overlap and not getattr(node, "_saved_training", True)
    if kind == "Div":
        return all(divisor is None for divisor, _ in node.next_functions[1:])
    return kind in _MULTILINEAR and not overlap
