"""The diagonal of the Hessian, entry by entry."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lnsgd.measures.curvature.problem import Problem, chunks
from lnsgd.measures.curvature.products import batch_products, by_tensor
from lnsgd.measures.curvature.rounds import BlockTraces

MAX_PARAMETERS = 20_000


def exact(problem: Problem) -> BlockTraces:
    """One Hessian product per parameter.

    Raises:
        ValueError: more than `MAX_PARAMETERS` parameters.
    """
    if problem.size > MAX_PARAMETERS:
        raise ValueError(
            f"method = 'exact' takes one Hessian product per parameter, and there are {problem.size}; at most "
            f"{MAX_PARAMETERS} are allowed: use method = 'auto'"
        )
    sums = torch.zeros(problem.size, dtype=torch.float64, device=problem.device)
    samples = 0
    for inputs, labels in problem.batches():
        for some, of_them in chunks(inputs, labels):
            loss = problem.losses(problem.outputs(some), of_them).sum()
            products = batch_products(loss, problem.parameters, _unit_vectors(problem))
            sums += torch.stack([product[i] for i, product in enumerate(products)])
        samples += len(inputs)
    return BlockTraces.exact(*problem.mean(by_tensor(sums, problem.parameters), samples))


def _unit_vectors(problem: Problem) -> Iterator[Tensor]:
    unit = torch.zeros(problem.size, dtype=problem.parameters[0].dtype, device=problem.device)
    for i in range(problem.size):
        unit[i] = 1
        yield unit
        unit[i] = 0
