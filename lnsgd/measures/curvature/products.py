"""Products of the Hessian with vectors, over data of any size."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.problem import Problem, chunks


def batch_products(loss: Tensor, parameters: list[nn.Parameter], vectors: Iterable[Tensor]) -> Iterator[Tensor]:
    """∇²loss·v for each flat vector v (P,), through one double-backward graph that all share."""
    if not (loss.isfinite() and loss.requires_grad):
        # Derivatives need not show that a loss is not finite, as where a constant is.
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


def hessian_products(problem: Problem, vectors: Tensor) -> tuple[Tensor, int]:
    """∇²L·v for each row v of ``vectors``, (K, P) of the parameters' type, and the number of examples.

    Summed over processes in float64: K·P numbers are sent.
    """
    sums = torch.zeros_like(vectors, dtype=torch.float64)
    samples = 0
    for inputs, labels in problem.batches():
        for some, of_them in chunks(inputs, labels):
            loss = problem.losses(problem.outputs(some), of_them).sum()
            for k, product in enumerate(batch_products(loss, problem.parameters, vectors)):
                sums[k] += product
        samples += len(inputs)
    mean, samples = problem.mean(sums, samples)
    return mean.to(vectors.dtype), samples


def rademacher(problem: Problem, count: int, generator: torch.Generator) -> Tensor:
    """Vectors of independent ±1, (count, P). Drawn on the CPU: the same on every device and process."""
    signs = [
        torch.cat([torch.randint(2, (p.numel(),), generator=generator) for p in problem.parameters])
        for _ in range(count)
    ]
    return torch.stack(signs).mul_(2).sub_(1).to(problem.parameters[0])


def unflatten(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """A flat vector (P,) in the shapes of the parameters."""
    parts = vector.split([p.numel() for p in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters)]


def by_tensor(entries: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Sums over the entries of each tensor: (…, P) to (…, T), float64."""
    parts = entries.double().split([p.numel() for p in parameters], dim=-1)
    return torch.stack([part.sum(-1) for part in parts], dim=-1)
