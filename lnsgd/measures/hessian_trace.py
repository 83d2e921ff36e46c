"""How flat the loss is: the trace of its Hessian."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.measures.estimate import Estimate
from lnsgd.measures.evaluation import evaluation_mode


@dataclass(frozen=True)
class HessianTrace:
    """Trace of the Hessian with respect to all trainable parameters, and of each tensor's diagonal block."""

    total: Estimate
    per_tensor: dict[str, Estimate]


def hessian_trace(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Iterable[tuple[Tensor, Tensor]],
    *,
    probes: int = 16,
    generator: torch.Generator | None = None,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> HessianTrace:
    """Hutchinson's estimate of Tr ∇²L, L the *mean* loss over the data, model in eval mode.

    Each probe v has independent ±1 entries (Rademacher), E[vᵀHv] = Tr H. All probes share one
    double-backward graph per batch; batches are summed, so the data may be larger than memory and
    batches of any size count by their examples.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        data: Batches (inputs, labels), on the model's device, not made in inference mode.
        probes: Number of probes, at least 2: one has no standard error.
        generator: CPU generator of the probes; seeded with 0 where it is ``None``.
        reduce: Sums a tensor over processes that each hold a part of the data. They must draw the
            same probes.

    Returns:
        Estimates with standard errors over probes; those of tensors sum to the total in ``value``.

    Raises:
        ValueError: fewer than two probes, no examples, no trainable parameter, or a loss that is
            not per example.
    """
    if probes < 2:
        raise ValueError(f"probes = {probes}; at least 2 are needed for a standard error")
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError(f"{type(model).__name__} has no trainable parameter (requires_grad is False for all)")
    parameters = list(named.values())
    with torch.inference_mode(False), torch.enable_grad(), evaluation_mode(model):
        vectors = _rademacher(parameters, probes, generator or torch.Generator().manual_seed(0))
        sums = torch.zeros(probes, len(parameters), dtype=torch.float64, device=parameters[0].device)
        samples = torch.zeros(1, dtype=torch.float64, device=sums.device)
        for inputs, labels in data:
            losses = loss(model(inputs), labels)
            if losses.shape != (len(inputs),):
                raise ValueError(
                    f"the loss gives shape {tuple(losses.shape)} for {len(inputs)} examples; it must be per example"
                )
            sums += _quadratic_forms(losses.sum(), parameters, vectors)
            samples += len(inputs)
    sums, count = reduce(sums), int(reduce(samples).item())
    if count == 0:
        raise ValueError("no examples to take the Hessian on; the data is empty")
    means = (sums / count).cpu()
    per_tensor = {name: Estimate.from_probes(means[:, i], count) for i, name in enumerate(named)}
    return HessianTrace(Estimate.from_probes(means.sum(1), count), per_tensor)


def _rademacher(parameters: Sequence[Tensor], probes: int, generator: torch.Generator) -> list[list[Tensor]]:
    """Probes as one list of tensors each. Drawn on the CPU: the same on every device and process."""
    return [
        [torch.randint(2, p.shape, generator=generator).mul_(2).sub_(1).to(p) for p in parameters]
        for _ in range(probes)
    ]


def _quadratic_forms(loss: Tensor, parameters: list[nn.Parameter], vectors: list[list[Tensor]]) -> Tensor:
    """Each tensor's part of vᵀHv for each probe, shape (probes, tensors), float64."""
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    rows = []
    for k, vector in enumerate(vectors):
        product = sum((g * v).sum() for g, v in zip(gradients, vector))
        if not (isinstance(product, Tensor) and product.requires_grad):  # a loss linear in θ has no curvature
            return torch.zeros(len(vectors), len(parameters), dtype=torch.float64, device=loss.device)
        curvature = torch.autograd.grad(product, parameters, retain_graph=k + 1 < len(vectors), materialize_grads=True)
        rows.append(torch.stack([(h.double() * v.double()).sum() for h, v in zip(curvature, vector)]))
    return torch.stack(rows)
