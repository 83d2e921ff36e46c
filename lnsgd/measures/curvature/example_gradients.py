"""Squared norms of the gradients of single examples, without those gradients where the layer allows it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn import grad as layer_gradients

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
}


class _Call:
    """One call of a module: its input, and the edge of the graph that its output left by."""

    def __init__(self, x: Tensor, edge: GradientEdge) -> None:
        self.x = x.detach()
        self.version = x._version
        self.edge = edge


class ExampleGradients:
    """‖Σ_c s_ic ∇_θ f_c(x_i)‖² for every example i and tensor of θ, from one backward pass for all examples.

    The model is in eval mode, so that no example sees another. Linear layers, convolutions and BatchNorm have
    rules of their own where they are called once; all other parameters cost one gradient per example
    (`torch.func.vmap`).

    Args:
        model: The model.
        named: θ by name.
    """

    def __init__(self, model: nn.Module, named: Mapping[str, nn.Parameter]) -> None:
        self.model = model
        self.named = named
        self._index = {name: k for k, name in enumerate(named)}

    def forward(self, inputs: Tensor) -> "ForwardPass":
        """Runs the model once and keeps what the norms of all later cotangents need."""
        calls: dict[nn.Module, list[_Call]] = {}
        with _recorded(self.model, calls):
            outputs = self.model(inputs)
        ruled: dict[str, tuple[nn.Module, str]] = {}
        for module, places in self._owners().items():
            mine = calls.get(module, [])
            if len(mine) <= 1 and all(len(call.x) == len(inputs) for call in mine):
                ruled |= {name: (module, own) for own, name in places.items()}
        return ForwardPass(self, inputs, outputs, {m: c[0] for m, c in calls.items()}, ruled)

    def _owners(self) -> dict[nn.Module, dict[str, str]]:
        """Modules with a rule, and their own parameters: local name to full name. Shared ones are left out."""
        names = {id(p): name for name, p in self.named.items()}
        holders: dict[int, int] = {}
        for module in self.model.modules():
            for p in module._parameters.values():
                holders[id(p)] = holders.get(id(p), 0) + 1
        return {
            module: {
                own: names[id(p)]
                for own, p in module._parameters.items()
                if p is not None and id(p) in names and holders[id(p)] == 1
            }
            for module in self.model.modules()
            if type(module) in _RULES
        }


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
        calls: Mapping[nn.Module, _Call],
        ruled: Mapping[str, tuple[nn.Module, str]],
    ) -> None:
        self._parent = parent
        self._inputs = inputs
        self.outputs = outputs
        self._calls = calls
        self._ruled = ruled

    def squared_norms(self, cotangents: Tensor) -> Tensor:
        """‖Σ_c s_ic ∇f_c(x_i)‖² by example and tensor, (B, T), float64, for cotangents s in the outputs' shape."""
        parent = self._parent
        found = torch.zeros(len(self._inputs), len(parent.named), dtype=torch.float64, device=cotangents.device)
        modules = list({module for module, _ in self._ruled.values() if module in self._calls})
        if modules and self.outputs.requires_grad:
            deltas = torch.autograd.grad(
                self.outputs,
                [self._calls[module].edge for module in modules],
                cotangents,
                retain_graph=True,
                materialize_grads=True,
            )
            norms = {m: self._norms(m, delta) for m, delta in zip(modules, deltas)}
            for name, (module, own) in self._ruled.items():
                if module in norms:
                    found[:, parent._index[name]] = norms[module][own].double()
        self._one_by_one(cotangents, found)
        return found

    def _norms(self, module: nn.Module, delta: Tensor) -> dict[str, Tensor]:
        call = self._calls[module]
        if call.x._version != call.version:
            raise ValueError(
                f"the input of a {type(module).__name__} was changed in place after the layer had used it; the norms "
                "of its gradients cannot be taken: use an operation that is not in place"
            )
        with torch.no_grad():
            return _RULES[type(module)](module, call.x, delta)

    def _one_by_one(self, cotangents: Tensor, found: Tensor) -> None:
        """Fills in parameters without a rule."""
        parent = self._parent
        rest = {name: p.detach() for name, p in parent.named.items() if name not in self._ruled}
        if not rest:
            return

        def product(weights: dict[str, Tensor], x: Tensor, s: Tensor) -> Tensor:
            return (functional_call(parent.model, weights, (x.unsqueeze(0),))[0] * s).sum()

        gradients = vmap(grad(product), in_dims=(None, 0, 0))(rest, self._inputs, cotangents)
        for name, gradient in gradients.items():
            found[:, parent._index[name]] = _squares(gradient.double())


@contextmanager
def _recorded(model: nn.Module, calls: dict[nn.Module, list[_Call]]) -> Iterator[None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            calls.setdefault(module, []).append(_Call(inputs[0], get_gradient_edge(output)))

    handles = [m.register_forward_hook(hook) for m in model.modules() if type(m) in _RULES]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
