"""Products of the Hessian with vectors, over data of any size."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from lnsgd import compat
from lnsgd.measures.curvature.graph import inputs_first
from lnsgd.measures.curvature.piecewise_linear import operation
from lnsgd.measures.curvature.problem import Problem, chunks
from lnsgd.measures.forward import Inputs, first_examples, functional_outputs


def batch_products(loss: Tensor, parameters: list[nn.Parameter], vectors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield ∇²loss·v for each flat vector v, shape (P,), through one double-backward graph that they share."""
    if not (loss.isfinite() and loss.requires_grad):
        # Derivatives need not show that a loss is not finite, for example if a constant in it is infinite.
        constant = 0.0 if loss.isfinite() else torch.nan
        yield from (torch.full_like(vector, constant) for vector in vectors)
        return
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    # A gradient that does not depend on θ adds nothing, and cannot be differentiated.
    moving = [k for k, gradient in enumerate(gradients) if gradient.requires_grad]
    for vector in vectors:
        if not moving:
            yield torch.zeros_like(vector)
            continue
        parts = unflatten(vector, parameters)
        product = torch.autograd.grad(
            [gradients[k] for k in moving],
            parameters,
            [parts[k] for k in moving],
            retain_graph=True,
            materialize_grads=True,
        )
        yield torch.cat([part.flatten() for part in product])


# A difference u·Hv − v·Hu of at most this many roots of the machine epsilon, relative to ‖Hu‖ + ‖Hv‖, is rounding.
_ROOTS_OF_ROUNDING = 10


# Steps of differences of gradients relative to the norm of θ, and the largest relative error of a right product.
_STEPS = (1e-2, 1e-3)
_DIFFERENCE = 0.2


# Operations with kinks, where gradients change at once, so that their differences say nothing about Hv.
_KINKED = (
    *("Abs", "AdaptiveMax", "Amax", "Amin", "Clamp", "Hard", "LeakyRelu", "Max", "Min", "Prelu", "Relu", "Rrelu"),
    *("Softshrink", "Threshold"),
)


def check_products(problem: Problem) -> None:
    """Check on two examples that u·Hv = v·Hu for random u and v, as it is for a Hessian of right second derivatives.

    Where a network without kinks, such as those of ReLU, calls a custom ``torch.autograd.Function``, Hv is compared
    with a difference of gradients too: a backward pass that takes results of the forward pass as constants gives a
    symmetric matrix that is wrong.

    Raises:
        ValueError: the products differ by more than rounding, or a second derivative is missing or wrong.
    """
    place = "as another process finds, a module"
    own = ""  # the name of a custom function whose second derivative is wrong
    is_wrong = torch.zeros(1, dtype=torch.float64, device=problem.device)
    for inputs, labels in problem.batches():
        if len(labels):
            some, of_them = first_examples(inputs, 2), labels[:2]
            outputs = problem.outputs(some)
            loss = problem.losses(outputs, of_them).sum()
            vectors = torch.randn(2, problem.size, generator=torch.Generator().manual_seed(0))
            vectors = vectors.to(problem.parameters[0])
            if _asymmetry(loss, problem, vectors):
                is_wrong += 1
                place = _asymmetric_module(loss, problem, vectors)
            elif (name := _custom_function(outputs, loss)) and _is_no_difference(
                loss, problem, some, of_them, vectors[0]
            ):
                is_wrong += 1
                own = name
            break
    if not problem.share.reduce(is_wrong).item():
        return
    if own:
        raise ValueError(
            f"Hv is not the change of the gradient along v: the second derivative of {own}, a custom autograd "
            "function, seems to be wrong; its backward must compute from tensors that forward was given, not from what "
            "forward made of them: correct it, or leave this measure out"
        )
    raise ValueError(
        f"the Hessian is not symmetric, u·Hv ≠ v·Hu: {place} has a second derivative that is wrong in PyTorch "
        f"{torch.__version__} or in a custom autograd function: replace the operation, or leave this measure out"
    )


def _custom_function(outputs: Tensor, loss: Tensor) -> str:
    """Return the name of a custom autograd function in a graph without kinks; empty if there is none."""
    nodes: list[Any] = list(inputs_first(outputs.grad_fn))
    kinds = [operation(node) for node in (*nodes, *inputs_first(loss.grad_fn, stop=nodes))]
    # A loss is chosen by Where for examples with a label.
    if any(kind.startswith(_KINKED) for kind in kinds) or any(operation(node) == "Where" for node in nodes):
        return ""
    own = [kind for node, kind in zip(nodes, kinds) if isinstance(node, BackwardCFunction)]
    return own[0] if own else ""


def _is_no_difference(loss: Tensor, problem: Problem, inputs: Inputs, labels: Tensor, vector: Tensor) -> bool:
    """Return whether Hv is far from (∇ℓ(θ + hv) − ∇ℓ(θ − hv))/2h for each of several steps h."""
    product = next(batch_products(loss, problem.parameters, [vector])).double()
    size = sum(p.detach().double().square().sum() for p in problem.parameters) ** 0.5
    for step in _STEPS:
        h = step * size / vector.double().norm()
        ends = [_gradient_at(problem, inputs, labels, sign * h * vector).double() for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * h)
        rounding = _ROOTS_OF_ROUNDING * torch.finfo(vector.dtype).eps * ends[0].norm() / h
        allowed = _DIFFERENCE * max(product.norm(), difference.norm()) + rounding
        if not (product - difference).norm() > allowed:
            return False
    return True


def _gradient_at(problem: Problem, inputs: Inputs, labels: Tensor, shift: Tensor) -> Tensor:
    """Return the gradient at θ + shift, shape (P,)."""
    parts = unflatten(shift.to(problem.parameters[0]), problem.parameters)
    shifted = {name: (p + part).detach().requires_grad_() for (name, p), part in zip(problem.named.items(), parts)}
    outputs = functional_outputs(problem.model, shifted, inputs, problem.calling)
    loss = problem.losses(outputs, labels).sum()
    found = torch.autograd.grad(loss, list(shifted.values()), materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def _asymmetry(loss: Tensor, problem: Problem, vectors: Tensor) -> bool:
    """Say whether u·Hv and v·Hu differ by more than rounding; not if they are not finite, which is noticed later."""
    u, v = vectors
    of_u, of_v = (product.double() for product in batch_products(loss, problem.parameters, vectors))
    allowed = _ROOTS_OF_ROUNDING * torch.finfo(vectors.dtype).eps ** 0.5 * (of_u.norm() + of_v.norm())
    return bool((u.double() @ of_v - v.double() @ of_u).abs() > allowed)


def _asymmetric_module(loss: Tensor, problem: Problem, vectors: Tensor) -> str:
    """Return the name of the first module whose own parameters alone make products that are not symmetric."""
    for name, module in problem.model.named_modules():
        own = {id(p) for p in module.parameters(recurse=False)}
        mask = torch.cat([torch.full((p.numel(),), id(p) in own) for p in problem.parameters]).to(problem.device)
        if mask.any() and _asymmetry(loss, problem, vectors * mask):
            return f"{compat.plain_name(name) or 'the model'} ({type(module).__name__})"
    return f"an operation between modules of {type(problem.model).__name__}"


def hessian_products(problem: Problem, vectors: Tensor) -> tuple[Tensor, int]:
    """Compute ∇²L·v for each row v of ``vectors``, summed over processes in float64: K·P numbers are sent.

    Args:
        problem: The problem.
        vectors: Shape (K, P), of the parameters' type.

    Returns:
        The products, shape (K, P), and the number of examples.
    """
    sums = torch.zeros_like(vectors, dtype=torch.float64)
    samples = 0
    for inputs, labels in problem.batches():
        for some, of_them in chunks(inputs, labels):
            loss = problem.losses(problem.outputs(some), of_them).sum()
            for k, product in enumerate(batch_products(loss, problem.parameters, vectors)):
                sums[k] += product
                problem.advance(len(of_them))
        samples += len(labels)
    mean, samples = problem.mean(sums, samples)
    return mean.to(vectors.dtype), samples


def rademacher(problem: Problem, count: int, generator: torch.Generator) -> Tensor:
    """Draw vectors of independent ±1, shape (count, P), on the CPU: they are the same on every device and process."""
    signs = [
        torch.cat([torch.randint(2, (p.numel(),), generator=generator) for p in problem.parameters])
        for _ in range(count)
    ]
    return torch.stack(signs).mul_(2).sub_(1).to(problem.parameters[0])


def unflatten(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Split a flat vector, shape (P,), into tensors in the shapes of the parameters."""
    parts = vector.split([p.numel() for p in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters)]


def by_tensor(entries: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Sum over the entries of each tensor: (…, P) to (…, T), float64."""
    parts = entries.double().split([p.numel() for p in parameters], dim=-1)
    return torch.stack([part.sum(-1) for part in parts], dim=-1)
