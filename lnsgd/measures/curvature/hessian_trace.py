"""The trace of the Hessian of the loss: a measure of its flatness."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import nn

from lnsgd.measures.curvature.gauss_newton import NoGaussNewtonError, gauss_newton
from lnsgd.measures.curvature.problem import Problem, differentiating
from lnsgd.measures.curvature.trace_estimators import BlockTraces, Budget, exact, hutch_plus_plus, hutchinson
from lnsgd.measures.estimate import Estimate
from lnsgd.measures.evaluation import WHOLE, LossFunction, Share
from lnsgd.measures.forward import Batches, OutputsFunction, outputs_of
from lnsgd.measures.report import Report

Method = Literal["auto", "ggn", "hutchinson", "hutch++", "exact"]
"""How `lnsgd.measures.hessian_trace` computes the trace."""


@dataclass(frozen=True)
class TraceEstimate:
    """Trace of the Hessian with respect to all trainable parameters, and of each tensor's diagonal block.

    Attributes:
        total: Trace of the whole Hessian; the values of the tensors sum to it, their errors do not.
        per_tensor: Trace of each tensor's block, by parameter name. ``min_probes`` is about the total: if a tensor
            has curvature from few examples only, its standard error by ggn is less certain.
        method: The method by which it was found.
    """

    total: Estimate
    per_tensor: dict[str, Estimate] = field(repr=False)
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
    share: Share = WHOLE,
    outputs: OutputsFunction = outputs_of,
    report: Report | None = None,
) -> TraceEstimate:
    """Estimate the trace Tr ∇²L of the Hessian of the *mean* loss L over the data, with a standard error.

    The model is in eval mode. The standard error is that of the probes: the data is not taken as a sample of more data.

    Methods:
        ggn: The generalized Gauss–Newton matrix (1/n)Σ_i J_iᵀ(∇²ℓ)J_i, from norms of the gradients of single
            examples; every example is a probe of its own. Its diagonal *equals* that of the Hessian where the
            outputs are piecewise linear in every single weight: for ReLU networks (including BatchNorm in eval mode,
            residual connections and pooling), at every θ that is not on a kink; not for tanh, GELU, LayerNorm,
            attention or weights that are used twice in a row. A last operation without weights, such as log-softmax
            or sigmoid, is taken as a part of the loss. Exact if the tolerance would take more probes than there are
            outputs.
        hutchinson: vᵀHv for sign vectors v (Hutchinson, 1990), through a double-backward graph.
        hutch++: vᵀHv outside the span of a random sketch of H, exact within the span (Meyer et al., 2021); keeps some
            (4/3)·probes vectors of the size of θ, and sends vectors between processes instead of scalars.
        exact: One Hessian product per parameter; for small networks.
        auto: ggn if its diagonal equals the Hessian's, and if the loss does not couple so many outputs of an example
            that decomposing their second derivatives would take longer than another method; else exact if there are no
            more parameters than ``max_probes``; else hutchinson.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``, twice differentiable in the outputs; or a loss of
            each label, in the labels' shape, whose mean is over the labels of all examples.
        data: Batches (inputs, labels) on the model's device, the same whenever they are iterated. Together they may be
            larger than memory.
        method: One of the methods above.
        rtol: Probes are added until the standard error is at most this fraction of the estimate.
        min_probes: Smallest number of probes; for ggn, of degrees of freedom of the standard error.
        max_probes: Largest number of probes (for hutch++, of products with the Hessian); if the tolerance is not met by
            then, the standard error says so.
        generator: CPU generator of the probes; by default one seeded with 0.
        share: This process's share of the data, if several processes take the measure together; their generators must
            give the same numbers.
        outputs: How the network is called, ``outputs(network, inputs) -> (B, …)``, see `lnsgd.measures.outputs_of`.
        report: Is told the progress; announces the method, the reason and the time if ``auto`` takes a dearer method
            than ggn, and a computation that takes long. By default to the logger ``lnsgd.measures``, see
            `lnsgd.measures.Report`.

    Returns:
        Estimates; ``probes`` and ``standard_error`` are 0 if they are exact.

    Raises:
        ValueError: an unknown method, a tolerance or numbers of probes that make no sense, no examples, data that can
            be read only once, no trainable parameter, outputs that are not floating point, a loss that is not
            per example, BatchNorm without running statistics, ggn for a network that is not piecewise linear,
            exact for a large one, hutch++ with fewer than 3 · ``min_probes`` products allowed, or operations whose
            second derivatives are missing or wrong.
        NonFiniteError: a loss or derivative is NaN or infinite.

    Example:
        >>> from lnsgd.losses import SquaredLoss
        >>> net = nn.Linear(2, 1, bias=False)
        >>> data = [(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.zeros(2, 1))]
        >>> round(hessian_trace(net, SquaredLoss(), data).total.value, 4)
        6.0
    """
    if method not in get_args(Method):
        raise ValueError(f"method = {method!r} is unknown; choose one of {', '.join(get_args(Method))}")
    budget = Budget(rtol, min_probes, max_probes)
    generator = generator or torch.Generator().manual_seed(0)
    with differentiating(model):
        report = report or Report("hessian_trace")
        problem = Problem(model, loss, data, share, outputs, report)
        if method == "auto":
            try:
                of_outputs = gauss_newton(problem, budget, generator, instead_of=min(problem.size, max_probes))
                return _named(problem, "ggn", of_outputs)
            except NoGaussNewtonError as refusal:
                method = "exact" if problem.size <= max_probes else "hutchinson"
                report.choose(f"method = {method!r} is taken and not 'ggn', because {refusal.reason}")
        found = _estimate(problem, method, budget, generator)
        report.finish()
        return found


def _estimate(problem: Problem, method: Method, budget: Budget, generator: torch.Generator) -> TraceEstimate:
    if method == "exact":
        found = exact(problem)
    elif method == "ggn":
        found = gauss_newton(problem, budget, generator)
    elif method == "hutch++":
        found = hutch_plus_plus(problem, budget, generator)
    else:
        found = hutchinson(problem, budget, generator)
    return _named(problem, method, found)


def _named(problem: Problem, method: Method, found: BlockTraces) -> TraceEstimate:
    per_tensor = {
        name: Estimate(value, error, found.probes, found.samples)
        for name, value, error in zip(problem.named, found.values.tolist(), found.errors.tolist())
    }
    total = Estimate(found.values.sum().item(), found.total_error, found.probes, found.samples)
    return TraceEstimate(total, per_tensor, method)
