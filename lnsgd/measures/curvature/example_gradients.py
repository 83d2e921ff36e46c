"""Squared norms of the gradients of single examples, without those gradients where the layer allows it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn import grad as layer_gradients

from lnsgd.measures.curvature.graph import inputs_first, users
from lnsgd.measures.evaluation import outputs_of
from lnsgd.models.sync_batch_norm import SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNorm3d

# How many numbers gradients of single examples take at a time.
_ENTRIES = 2**26

# Of a module's input x and of δ, the gradient by its output, both with examples first: ‖∂/∂p‖² of every
# example for each of its parameters p by name, (B,).
Norms = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]


def _linear(layer: nn.Linear, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """The gradient δxᵀ has norm ‖δ‖‖x‖; summed over positions it is one product of matrices."""
    if x.ndim == 2:
        deltas = delta.square().sum(1)
        return {"weight": deltas * x.square().sum(1), "bias": deltas}
    x, delta = x.flatten(1, -2), delta.flatten(1, -2)
    return {"weight": _squares(torch.bmm(delta.transpose(1, 2), x)), "bias": _squares(delta.sum(1))}


def _convolution(layer: Any, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """All examples' weight gradients as one grouped convolution: as fast as their sum, on the CPU (measured)."""
    padding = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode), 0
    examples, out, space = len(x), layer.out_channels, x.shape[2:]
    weight_gradient = {1: layer_gradients.conv1d_weight, 2: layer_gradients.conv2d_weight}[len(space)]
    gradients = weight_gradient(
        x.reshape(1, -1, *space),
        (examples * out, *layer.weight.shape[1:]),
        delta.reshape(1, -1, *delta.shape[2:]),
        layer.stride,
        padding,
        layer.dilation,
        groups=examples * layer.groups,
    )
    return {"weight": _squares(gradients.view(examples, -1)), "bias": _squares(delta.flatten(2).sum(2))}


def _batch_norm(layer: Any, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """In eval mode: y = w·x̂ + b with x̂ from the running statistics."""
    standard = F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
    per_channel = [t.reshape(*t.shape[:2], -1).sum(2) for t in (delta * standard, delta)]
    return {"weight": _squares(per_channel[0]), "bias": _squares(per_channel[1])}


def _squares(gradients: Tensor) -> Tensor:
    return gradients.flatten(1).square().sum(1)


_RULES: dict[type[nn.Module], Norms] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,  # in eval mode all of these are one layer
    SyncBatchNorm1d: _batch_norm,
    SyncBatchNorm2d: _batch_norm,
    SyncBatchNorm3d: _batch_norm,
}


class _Call:
    """One call of a module: its input, and the edge of the graph that its output left by."""

    def __init__(self, x: Tensor, output: Tensor) -> None:
        self.x = x.detach()
        self.version = x._version
        self.before = x.grad_fn
        self.edge = get_gradient_edge(output)


# The call of each module, `None` where there was more than one.
_Calls = dict[nn.Module, _Call | None]


class ExampleGradients:
    """‖Σ_c s_ic ∇_θ f_c(x_i)‖² for every example i and tensor of θ, from one backward pass for all examples.

    The model is in eval mode, so that no example sees another. Linear layers, convolutions and BatchNorm have
    rules of their own where they are called once, on examples, and nothing else uses their weights; all other
    parameters cost one gradient per example (`torch.func.vmap`, or a loop where it does not take the model).

    Args:
        model: The model.
        named: θ by name.
    """

    def __init__(self, model: nn.Module, named: Mapping[str, nn.Parameter]) -> None:
        self.model = model
        self.named = named
        self._index = {name: k for k, name in enumerate(named)}
        self._by_example: set[nn.Module] | None = None

    def forward(self, inputs: Tensor) -> "ForwardPass":
        """Runs the model once and keeps what the norms of all later cotangents need.

        Raises:
            ValueError: outputs that are not floating point, or not one tensor.
        """
        if self._by_example is None:
            # In a batch, something else can have as many rows as there are examples: positions, prototypes.
            _, calls = self._run(inputs[:1])
            self._by_example = {module for module, call in calls.items() if call is not None and len(call.x) == 1}
        outputs, calls = self._run(inputs)
        found = users(outputs.grad_fn)
        names = {id(p): name for name, p in self.named.items()}
        ruled: dict[str, tuple[nn.Module, str, _Call]] = {}
        for module in self._by_example:
            call = calls.get(module)
            if call is not None and len(call.x) == len(inputs) and _is_only_use(call, found):
                for own in ("weight", "bias"):
                    p = module._parameters.get(own)
                    if p is not None and id(p) in names:
                        ruled[names[id(p)]] = (module, own, call)
        used = {names.get(id(getattr(node, "variable", None))) for node in found}
        rest = [name for name in self.named if name in used and name not in ruled]
        return ForwardPass(self, inputs, outputs, ruled, rest)

    def _run(self, inputs: Tensor) -> tuple[Tensor, _Calls]:
        calls: _Calls = {}
        with _recorded(self.model, calls):
            outputs = outputs_of(self.model, inputs)
        return outputs, calls


def _is_only_use(call: _Call, found: Mapping[Any, set[Any]]) -> bool:
    """Whether outputs depend on a call, and on the weights in it, by nothing but the edge it left by.

    No second call, no functional use of a weight, nothing that was changed in place since.

    Args:
        call: The call.
        found: `users` in the whole graph.
    """
    inside = set(inputs_first(call.edge.node, stop=[call.before]))
    return call.edge.node in found and all(found[node] <= inside for node in inside - {call.edge.node})


class ForwardPass:
    """The outputs of a batch, and from them the norms of gradients.

    Attributes:
        outputs: (B, …), with their graph.
    """

    def __init__(
        self,
        parent: ExampleGradients,
        inputs: Tensor,
        outputs: Tensor,
        ruled: Mapping[str, tuple[nn.Module, str, _Call]],
        rest: list[str],
    ) -> None:
        self._parent = parent
        self._inputs = inputs
        self.outputs = outputs
        self._ruled = ruled
        self._rest = rest

    def squared_norms(self, cotangents: Tensor) -> Tensor:
        """‖Σ_c s_ic ∇f_c(x_i)‖² by example and tensor, (B, T), float64, for cotangents s in the outputs' shape."""
        parent = self._parent
        found = torch.zeros(len(self._inputs), len(parent.named), dtype=torch.float64, device=cotangents.device)
        calls = {module: call for module, _, call in self._ruled.values()}
        if calls:
            edges = [call.edge for call in calls.values()]
            deltas = torch.autograd.grad(self.outputs, edges, cotangents, retain_graph=True)
            norms = {m: _norms(m, call, delta) for (m, call), delta in zip(calls.items(), deltas)}
            for name, (module, own, _) in self._ruled.items():
                found[:, parent._index[name]] = norms[module][own].double()
        if self._rest:
            for name, squares in self._one_by_one(cotangents).items():
                found[:, parent._index[name]] = squares
        return found

    def _one_by_one(self, cotangents: Tensor) -> dict[str, Tensor]:
        """Of parameters without a rule, by name: (B,)."""
        model = self._parent.model
        weights = {name: self._parent.named[name] for name in self._rest}

        # A product of vectors, as a model may give the outputs of a single example in another shape.
        def product(weights: dict[str, Tensor], x: Tensor, s: Tensor) -> Tensor:
            return functional_call(model, weights, (x.unsqueeze(0),)).flatten() @ s.flatten()

        examples_at_once = max(1, _ENTRIES // sum(p.numel() for p in weights.values()))
        gradients = vmap(grad(product), in_dims=(None, 0, 0), chunk_size=examples_at_once)
        try:
            found = gradients({name: p.detach() for name, p in weights.items()}, self._inputs, cotangents)
        except RuntimeError:  # an operation that vmap does not take, as control flow that depends on data
            products = (product({}, x, s) for x, s in zip(self._inputs, cotangents))
            rows = [torch.autograd.grad(p, list(weights.values()), materialize_grads=True) for p in products]
            found = {name: torch.stack(column) for name, column in zip(weights, zip(*rows))}
        return {name: _squares(gradient.double()) for name, gradient in found.items()}


def _norms(module: nn.Module, call: _Call, delta: Tensor) -> dict[str, Tensor]:
    if call.x._version != call.version:
        raise ValueError(
            f"the input of a {type(module).__name__} was changed in place after the layer had used it; the norms "
            "of its gradients cannot be taken: use an operation that is not in place"
        )
    with torch.no_grad():
        return _RULES[type(module)](module, call.x, delta)


@contextmanager
def _recorded(model: nn.Module, calls: _Calls) -> Iterator[None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> None:
        if output.requires_grad:
            x = args[0] if args else kwargs["input"]
            calls[module] = None if module in calls else _Call(x, output)

    # First of its hooks, for others may change the output. A forward of an instance's own may do anything.
    modules = [m for m in model.modules() if type(m) in _RULES and "forward" not in vars(m)]
    handles = [m.register_forward_hook(hook, prepend=True, with_kwargs=True) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
