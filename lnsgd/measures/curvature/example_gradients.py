"""Squared norms of the gradients of single examples, without forming the gradients if the layer allows it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import grad, vmap
from torch.nn import grad as layer_gradients

from lnsgd import compat
from lnsgd.measures.curvature.graph import inputs_first, users
from lnsgd.measures.curvature.piecewise_linear import linear_part
from lnsgd.measures.forward import (
    Inputs,
    OutputsFunction,
    examples_in,
    first_examples,
    functional_outputs,
    map_inputs,
    outputs_of,
)
from lnsgd.models.sync_batch_norm import SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNorm3d

# Gradients of single examples are formed in parts of at most this many numbers.
_ENTRIES = 2**26

# A rule: from a module, its input x, and the gradient δ by its output (both with examples first) to ‖∂/∂p‖² of every
# example, shape (B,), for each of the module's parameters p by name.
Norms = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]


def _linear(layer: nn.Linear, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """Use that the gradient δxᵀ has norm ‖δ‖‖x‖; a sum over positions is one product of matrices."""
    if x.ndim == 2:
        deltas = delta.square().sum(1)
        return {"weight": deltas * x.square().sum(1), "bias": deltas}
    x, delta = x.flatten(1, -2), delta.flatten(1, -2)
    return {"weight": _squares(torch.bmm(delta.transpose(1, 2), x)), "bias": _squares(delta.sum(1))}


def _convolution(layer: Any, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """Form all examples' weight gradients by one grouped convolution, on the CPU as fast as their sum (measured)."""
    padding = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x, padding = F.pad(x, compat.two_sided_padding(layer), mode=mode), 0
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
    """Use that in eval mode y = w·x̂ + b with x̂ from the running statistics."""
    standard = F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
    per_channel = [t.reshape(*t.shape[:2], -1).sum(2) for t in (delta * standard, delta)]
    return {"weight": _squares(per_channel[0]), "bias": _squares(per_channel[1])}


def _squares(gradients: Tensor) -> Tensor:
    return gradients.reshape(len(gradients), -1).square().sum(1)  # of a parameter without dimensions, shape (B,)


_RULES: dict[type[nn.Module], Norms] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,  # in eval mode all of these compute the same
    SyncBatchNorm1d: _batch_norm,
    SyncBatchNorm2d: _batch_norm,
    SyncBatchNorm3d: _batch_norm,
}


class _Call:
    """One call of a module: its input, and the edge of the autograd graph of its output."""

    def __init__(self, x: Tensor, output: Tensor) -> None:
        self.x = x.detach()
        self.version = compat.tensor_version(x)
        self.before = x.grad_fn
        self.edge = get_gradient_edge(output)


# The call of each module; `None` if there was more than one.
_Calls = dict[nn.Module, _Call | None]


class ExampleGradients:
    """Norms ‖Σ_c s_ic ∇_θ f_c(x_i)‖² for every example i and tensor of θ, from one backward pass for all examples.

    The model is in eval mode, so that examples do not depend on each other. Linear layers, convolutions and BatchNorm
    have rules of their own if they are called once, on examples, and nothing else uses their weights; all other
    parameters cost one gradient per example (`torch.func.vmap`, or a loop if vmap does not take the model).

    Args:
        model: The model.
        named: θ by name.
        outputs: How the network is called, see `lnsgd.measures.forward`.
    """

    def __init__(
        self, model: nn.Module, named: Mapping[str, nn.Parameter], outputs: OutputsFunction = outputs_of
    ) -> None:
        self.model = model
        self.calling = outputs
        self.named = named
        self._index = {name: k for k, name in enumerate(named)}
        self._by_example: set[nn.Module] | None = None

    def forward(self, inputs: Inputs) -> "ForwardPass":
        """Run the model once and keep the intermediate results for the norms of later cotangents.

        Args:
            inputs: Inputs of a batch, shape (B, …).

        Raises:
            ValueError: outputs that are not floating point, or not one tensor.
        """
        if self._by_example is None:
            # One example tells calls on examples from calls on as many positions or prototypes as there are examples.
            _, calls = self._run(first_examples(inputs, 1))
            self._by_example = {module for module, call in calls.items() if call is not None and len(call.x) == 1}
        outputs, calls = self._run(inputs)
        found = users(outputs.grad_fn)
        names = {id(p): name for name, p in self.named.items()}
        ruled: dict[str, tuple[nn.Module, str, _Call]] = {}
        for module in self._by_example:
            call = calls.get(module)
            if call is not None and len(call.x) == examples_in(inputs) and _is_only_use(call, found):
                parameters = dict(module.named_parameters(recurse=False, remove_duplicate=False))
                for own in ("weight", "bias"):
                    p = parameters.get(own)
                    if p is not None and id(p) in names:
                        ruled[names[id(p)]] = (module, own, call)
        used = {names.get(id(getattr(node, "variable", None))) for node in found}
        rest = [name for name in self.named if name in used and name not in ruled]
        return ForwardPass(self, inputs, outputs, ruled, rest)

    def _run(self, inputs: Inputs) -> tuple[Tensor, _Calls]:
        calls: _Calls = {}
        with _recorded(self.model, calls):
            outputs = outputs_of(self.model, inputs, self.calling)
        return outputs, calls


def _is_only_use(call: _Call, found: Mapping[Any, set[Any]]) -> bool:
    """Say whether outputs depend on a call, and on the weights in it, only through the edge of its output.

    This excludes a functional use of a weight, and a change in place since the call.

    Args:
        call: The call.
        found: `users` in the whole graph.
    """
    inside = set(inputs_first(call.edge.node, stop=[call.before]))
    return call.edge.node in found and all(found[node] <= inside for node in inside - {call.edge.node})


class ForwardPass:
    """A forward pass of a batch, from which norms of gradients are computed.

    Attributes:
        outputs: Outputs, shape (B, …), with their autograd graph.
    """

    def __init__(
        self,
        parent: ExampleGradients,
        inputs: Inputs,
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
        """Compute ‖Σ_c s_ic ∇f_c(x_i)‖² by example and tensor, shape (B, T), float64.

        Args:
            cotangents: s, in the outputs' shape.
        """
        by_outputs = () if self.outputs.grad_fn is None else (get_gradient_edge(self.outputs),)
        return self.squared_norms_by(by_outputs, (cotangents,))

    def squared_norms_by(self, edges: Sequence[GradientEdge], cotangents: Sequence[Tensor]) -> Tensor:
        """Compute ‖Σ_c s_ic ∇z_ic‖² by example and tensor, shape (B, T), float64, of values z in the graph.

        Args:
            edges: Where z is in the graph. Everything in θ that outputs depend on reaches them through z.
            cotangents: s, for each edge in its shape; its rows belong to the examples, equally many to each.
        """
        parent = self._parent
        examples = len(self.outputs)
        found = torch.zeros(examples, len(parent.named), dtype=torch.float64, device=self.outputs.device)
        calls = {module: call for module, _, call in self._ruled.values()}
        if calls:
            of_calls = [call.edge for call in calls.values()]
            deltas = torch.autograd.grad(edges, of_calls, cotangents, retain_graph=True)
            norms = {m: _norms(m, call, delta) for (m, call), delta in zip(calls.items(), deltas)}
            for name, (module, own, _) in self._ruled.items():
                found[:, parent._index[name]] = norms[module][own].double()
        if self._rest:
            inside = edges[0].node is not self.outputs.grad_fn
            squares_of = self._inside_one_by_one(cotangents) if inside else self._one_by_one(cotangents[0])
            for name, squares in squares_of.items():
                found[:, parent._index[name]] = squares
        return found

    def _one_by_one(self, cotangents: Tensor) -> dict[str, Tensor]:
        """Compute the squared norms of parameters without a rule by name, shape (B,) each."""
        model = self._parent.model
        weights = {name: self._parent.named[name] for name in self._rest}

        # A product of vectors, because a model may give the outputs of a single example in another shape.
        def product(weights: dict[str, Tensor], x: Any, s: Tensor) -> Tensor:
            one = map_inputs(lambda tensor: tensor.unsqueeze(0), x)
            return functional_outputs(model, weights, one, self._parent.calling).flatten() @ s.flatten()

        examples_at_once = max(1, _ENTRIES // sum(p.numel() for p in weights.values()))
        gradients = vmap(grad(product), in_dims=(None, 0, 0), chunk_size=examples_at_once)
        try:
            found = gradients({name: p.detach() for name, p in weights.items()}, self._inputs, cotangents)
        except RuntimeError:  # an operation that vmap does not take, such as control flow that depends on data
            examples = (map_inputs(lambda tensor, i=i: tensor[i], self._inputs) for i in range(len(cotangents)))  # type: ignore[misc]
            products = (product({}, x, s) for x, s in zip(examples, cotangents))
            rows = [torch.autograd.grad(p, list(weights.values()), materialize_grads=True) for p in products]
            found = {name: torch.stack(column) for name, column in zip(weights, zip(*rows))}
        return {name: _squares(gradient.double()) for name, gradient in found.items()}

    def _inside_one_by_one(self, cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
        """Do the same for cotangents of the values that `linear_part` finds, by a pass for each example."""
        parent = self._parent
        weights = [parent.named[name] for name in self._rest]
        rows = []
        for i in range(len(self.outputs)):
            one = map_inputs(lambda tensor, i=i: tensor[i : i + 1], self._inputs)  # type: ignore[misc]
            edges = linear_part(outputs_of(parent.model, one, parent.calling), parent.named)
            assert edges is not None  # it was found for all examples together
            parts = [part.unflatten(0, (len(self.outputs), -1))[i] for part in cotangents]
            rows.append(torch.autograd.grad(edges, weights, parts, materialize_grads=True))
        found = {name: torch.stack(column) for name, column in zip(self._rest, zip(*rows))}
        return {name: _squares(gradient.double()) for name, gradient in found.items()}


def _norms(module: nn.Module, call: _Call, delta: Tensor) -> dict[str, Tensor]:
    if compat.tensor_version(call.x) != call.version:
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

    # First of the module's hooks, because others may change the output. An instance's own forward may do anything.
    modules = [m for m in model.modules() if type(m) in _RULES and "forward" not in vars(m)]
    handles = [m.register_forward_hook(hook, prepend=True, with_kwargs=True) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
