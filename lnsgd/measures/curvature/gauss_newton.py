"""Trace of the generalized Gauss–Newton matrix from norms of single examples' gradients."""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor

from lnsgd.measures.curvature.example_gradients import ExampleGradients, ForwardPass
from lnsgd.measures.curvature.output_curvature import output_factors
from lnsgd.measures.curvature.piecewise_linear import bent_operation, operation, place_of, traced
from lnsgd.measures.curvature.problem import Problem, chunks
from lnsgd.measures.curvature.rounds import BlockTraces, Budget

# Independent probes of each example in a round, the fewest that have a spread.
_PAIR = 2


class NotPiecewiseLinearError(ValueError):
    """The diagonal of the Hessian need not be that of the Gauss–Newton matrix."""


def gauss_newton(problem: Problem, budget: Budget, generator: torch.Generator) -> BlockTraces:
    """Tr (1/n)Σ_i J_iᵀ S_i J_i, S_i = ∇²ℓ with respect to the outputs, J_i the Jacobian of the outputs.

    With S = Σ_k λ_k u_k u_kᵀ and random signs ε_k, s = Σ_k ε_k √λ_k u_k has E[s sᵀ] = S, so that ‖J_iᵀs‖² has the
    mean Tr J_iᵀ S_i J_i. One probe is one backward pass, in which every example has its own signs. Where the
    tolerance needs more probes than there are outputs C, the C eigenvectors are taken in place of random
    signs, and nothing is left to chance.

    Raises:
        NotPiecewiseLinearError: see `bent_operation`.
    """
    outputs = _check_piecewise_linear(problem)
    spread = _Spread(problem, outputs)
    more = _PAIR
    while True:
        left = budget.max_probes - spread.probes
        if outputs <= budget.max_probes and more >= min(outputs, left + 1):
            return _exact(problem, outputs)
        if left < _PAIR:
            return spread.estimate()
        spread.add(min(more, left), generator)
        found = spread.estimate()
        value = found.values.sum().item()
        known = spread.degrees_of_freedom >= budget.min_probes
        if known and budget.reached(value, found.total_error):
            return found
        more = max(_PAIR, _needed(found, value, budget) - found.probes if known else found.probes)


def _needed(found: BlockTraces, value: float, budget: Budget) -> int:
    """Probes for the tolerance: a fifth more than the spread so far asks for, as it may be too small by chance."""
    allowed = (budget.rtol * value) ** 2
    never = budget.max_probes + 1
    return ceil(min(1.2 * found.total_error**2 / allowed * found.probes, never)) if allowed else never


def _check_piecewise_linear(problem: Problem) -> int:
    """Looks at one example's graph, see `bent_operation`; gives the number of outputs."""
    # Of one process: number of outputs, whether it has an example, whether it refuses. All must go the same way.
    verdict = torch.zeros(3, dtype=torch.float64, device=problem.device)
    place = "as another process finds, one of its modules is not"
    for inputs, _ in problem.batches():
        if not len(inputs):
            continue
        with traced(problem.model) as trace:
            found = problem.outputs(inputs[:1])
        node = bent_operation(found, problem.named)
        if node is not None:
            place = f"{place_of(node, trace)} is not, by its operation {operation(node)}"
        verdict += torch.tensor([found.numel(), 1, node is not None]).to(verdict)
        break
    outputs, processes, refusals = problem.share.reduce(verdict).tolist()
    if refusals:
        raise NotPiecewiseLinearError(
            f"method = 'ggn' needs a network that is piecewise linear in every single weight; {place}: use "
            "method = 'auto'"
        )
    return int(outputs / max(processes, 1))


class _Spread:
    """Mean and spread of independent probes of every example, over several passes."""

    def __init__(self, problem: Problem, outputs: int) -> None:
        self.problem = problem
        self.outputs = outputs
        self.probes = 0
        self.samples = 0
        # Means over examples of Σ_k t_k and of Σ_k (t_k − t̄)² by tensor; of the latter for all, and its square.
        self._means = torch.zeros(2 * len(problem.named) + 2, dtype=torch.float64, device=problem.device)
        self._degrees = 0  # Σ over passes of (probes − 1)

    def add(self, probes: int, generator: torch.Generator) -> None:
        """One more pass over the data, with at least two probes."""
        # A seed for each pass and each batch, for processes may have different numbers of batches and examples.
        batches = torch.Generator().manual_seed(_seed(generator))
        share = self.problem.share

        def signs(examples: int) -> Tensor:
            of_batch = torch.Generator().manual_seed(_seed(batches))
            drawn = torch.randint(2, (examples * share.world, probes, self.outputs), generator=of_batch)
            return drawn[share.rank :: share.world] * 2 - 1

        def moments(values: Tensor) -> Tensor:
            of_all = values.sum(-1).var(0)
            spreads = torch.cat(
                [values.var(0).sum(0), of_all.sum(0, keepdim=True), of_all.square().sum(0, keepdim=True)]
            )
            return torch.cat([values.sum((0, 1)), (probes - 1) * spreads])

        means, self.samples = _over_examples(self.problem, signs, moments, torch.zeros_like(self._means))
        self._means += means
        self.probes += probes
        self._degrees += probes - 1

    @property
    def degrees_of_freedom(self) -> float:
        """Of the spread of all (Satterthwaite): few where a few examples make most of it."""
        spread, squares = self._means[-2:].tolist()
        return self.samples * spread**2 / squares if squares > 0 else 0.0

    def estimate(self) -> BlockTraces:
        """What the probes so far say."""
        tensors = len(self.problem.named)
        sums, spreads = self._means[:-1].split([tensors, tensors + 1])
        errors = (spreads / (self._degrees * self.probes * self.samples)).sqrt()
        return BlockTraces(sums / self.probes, errors[:-1], errors[-1].item(), self.probes, self.samples)


def _exact(problem: Problem, outputs: int) -> BlockTraces:
    means, samples = _over_examples(
        problem,
        signs=lambda examples: torch.eye(outputs).expand(examples, -1, -1),
        statistics=lambda values: values.sum((0, 1)),
        sums=torch.zeros(len(problem.named), dtype=torch.float64, device=problem.device),
    )
    return BlockTraces.exact(means, samples)


def _over_examples(
    problem: Problem, signs: Callable[[int], Tensor], statistics: Callable[[Tensor], Tensor], sums: Tensor
) -> tuple[Tensor, int]:
    """Mean over all examples of statistics of ‖J_iᵀ F_i ε_i‖², F_i Fᵢᵀ = S_i, and the number of examples.

    Args:
        problem: What is differentiated.
        signs: ε of a batch of so many examples, (B, probes, C).
        statistics: Of values (probes, B, T), to be summed over parts of the data.
        sums: Zeros for them.
    """
    gradients = ExampleGradients(problem.model, problem.named)
    samples = 0
    for inputs, labels in problem.batches():
        for some, of_them, chosen in chunks(inputs, labels, signs(len(inputs))):
            forward = gradients.forward(some)
            factors, sides = output_factors(problem, forward.outputs, of_them)
            sums += statistics(_quadratic_forms(forward, factors, sides, chosen.to(factors)))
        samples += len(inputs)
    return problem.mean(sums, samples)


def _quadratic_forms(forward: ForwardPass, factors: Tensor, sides: Tensor, signs: Tensor) -> Tensor:
    """Values (probes, B, T); where a loss is not convex its two sides are probed apart and subtracted."""

    def mixed(signs: Tensor) -> Tensor:
        return (factors @ signs.unsqueeze(-1)).view_as(forward.outputs)

    values = []
    for chosen in signs.unbind(1):
        value = forward.squared_norms(mixed(chosen * (sides > 0)))
        if (sides < 0).any():
            value -= forward.squared_norms(mixed(chosen * (sides < 0)))
        values.append(value)
    return torch.stack(values)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator).item())
