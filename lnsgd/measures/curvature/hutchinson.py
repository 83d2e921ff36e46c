"""Hutchinson's estimator: v·Hv for random sign vectors v."""

import torch
from torch import Tensor

from lnsgd.measures.curvature.problem import Problem, chunks
from lnsgd.measures.curvature.products import batch_products, by_tensor, rademacher
from lnsgd.measures.curvature.rounds import BlockTraces, Budget


def hutchinson(problem: Problem, budget: Budget, generator: torch.Generator) -> BlockTraces:
    """Mean of vᵀHv over independent sign vectors v, since E[vᵀHv] = Tr H.

    Each round doubles the number of probes, which share one double-backward graph per batch.
    """
    values, samples = _quadratic_forms(problem, rademacher(problem, budget.min_probes, generator))
    while more := budget.more_probes(values):
        added, samples = _quadratic_forms(problem, rademacher(problem, more, generator))
        values = torch.cat([values, added])
    return BlockTraces.from_probes(values, samples, len(values))


def _quadratic_forms(problem: Problem, vectors: Tensor) -> tuple[Tensor, int]:
    sums = torch.zeros(len(vectors), len(problem.parameters), dtype=torch.float64, device=problem.device)
    samples = 0
    for inputs, labels in problem.batches():
        for some, of_them in chunks(inputs, labels):
            loss = problem.losses(problem.outputs(some), of_them).sum()
            products = batch_products(loss, problem.parameters, vectors)
            for k, (vector, product) in enumerate(zip(vectors, products)):
                sums[k] += by_tensor(vector.double() * product, problem.parameters)
        samples += len(inputs)
    return problem.mean(sums, samples)
