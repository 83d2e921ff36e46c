"""How flat the loss is: the trace of its Hessian."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from lnsgd.measures.curvature.dense import exact
from lnsgd.measures.curvature.gauss_newton import NotPiecewiseLinearError, gauss_newton
from lnsgd.measures.curvature.hutch_plus_plus import hutch_plus_plus
from lnsgd.measures.curvature.hutchinson import hutchinson
from lnsgd.measures.curvature.problem import Batches, LossFunction, Problem, Share, differentiating
from lnsgd.measures.curvature.rounds import Budget
from lnsgd.measures.estimate import Estimate

Method = Literal["auto", "ggn", "hutchinson", "hutch++", "exact"]


@dataclass(frozen=True)
class HessianTrace:
    """Trace of the Hessian with respect to all trainable parameters, and of each tensor's diagonal block.

    Attributes:
        total: Of all; the values of the tensors sum to it, their errors do not.
        per_tensor: By name of the parameter. ``min_probes`` is about the total; in a tensor to which few examples have
            brought curvature, the standard error of ggn rests on fewer degrees of freedom, and is less certain.
        method: How it was found.
    """

    total: Estimate
    per_tensor: dict[str, Estimate]
    method: Method


def hessian_trace(
    model: nn.Module,
    loss: LossFunction,
    data: Batches,
    *,
    method: Method = "auto",
    rtol: float = 0.02,
    min_probes: int = 16,
    max_probes: int = 1000,
    generator: torch.Generator | None = None,
    share: Share = Share(),  # noqa: B008
) -> HessianTrace:
    """Tr ∇²L, L the *mean* loss over the data, model in eval mode; the data is taken as it is, not as a sample.

    Methods:
        ggn: The generalized Gauss–Newton matrix (1/n)Σ_i J_iᵀ(∇²ℓ)J_i, from norms of the gradients of single
            examples; every example is a probe of its own. Its diagonal *equals* that of the Hessian where the
            outputs are piecewise linear in every single weight: for ReLU networks (BatchNorm in eval mode,
            residual connections and pooling included), at every θ that is not on a kink. Not for tanh, GELU,
            LayerNorm, attention or weights that are used twice in a row. Exact where the tolerance would
            take more probes than there are outputs.
        hutchinson: vᵀHv for sign vectors v (Hutchinson 1990), through a double-backward graph.
        hutch++: The same outside the span of a random sketch of H, exact within (Meyer et al. 2021); keeps some
            (4/3)·probes vectors of the size of θ, and sends vectors between processes, not scalars.
        exact: One Hessian product per parameter; for small networks.
        auto: ggn where it is the Hessian's; else exact where there are no more parameters than ``max_probes``; else
            hutchinson.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``, twice differentiable in the outputs.
        data: Batches (inputs, labels) on the model's device, the same whenever they are iterated. They may be
            larger than memory together.
        method: See above.
        rtol: Probes are added until the standard error is at most this part of the estimate.
        min_probes: Never fewer; for ggn, degrees of freedom of the standard error.
        max_probes: Never more (for hutch++ products with the Hessian); the standard error then says how far it got.
        generator: CPU generator of the probes; seeded with 0 where it is ``None``.
        share: This process's share of the data, where several take the trace together; their generators must
            give the same numbers.

    Returns:
        Estimates; ``standard_error`` is that of the probes, ``probes`` is 0 and the error 0 where it is exact.

    Raises:
        ValueError: an unknown method, a tolerance or numbers of probes that make no sense, no examples, data that can
            be read only once, no trainable parameter, outputs that are not floating point, a loss that is not
            per example, BatchNorm without running statistics, ggn for a network that is not piecewise linear,
            exact for a large one, or hutch++ with fewer than 3 · ``min_probes`` products allowed.
        NonFiniteError: a loss or derivative is NaN or infinite.
    """
    if method not in get_args(Method):
        raise ValueError(f"method = {method!r} is unknown; choose one of {', '.join(get_args(Method))}")
    budget = Budget(rtol, min_probes, max_probes)
    generator = generator or torch.Generator().manual_seed(0)
    with differentiating(model):
        problem = Problem(model, loss, data, share)
        if method == "auto":
            try:
                return _estimate(problem, "ggn", budget, generator)
            except NotPiecewiseLinearError:
                method = "exact" if problem.size <= max_probes else "hutchinson"
        return _estimate(problem, method, budget, generator)


def _estimate(problem: Problem, method: Method, budget: Budget, generator: torch.Generator) -> HessianTrace:
    if method == "exact":
        found = exact(problem)
    elif method == "ggn":
        found = gauss_newton(problem, budget, generator)
    elif method == "hutch++":
        found = hutch_plus_plus(problem, budget, generator)
    else:
        found = hutchinson(problem, budget, generator)
    per_tensor = {
        name: Estimate(value, error, found.probes, found.samples)
        for name, value, error in zip(problem.named, found.values.tolist(), found.errors.tolist())
    }
    total = Estimate(found.values.sum().item(), found.total_error, found.probes, found.samples)
    return HessianTrace(total, per_tensor, method)
