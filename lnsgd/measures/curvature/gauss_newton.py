"""The trace of the generalized Gauss–Newton matrix, from norms of the gradients of single examples."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lnsgd.measures.curvature.example_gradients import ExampleGradients, ForwardPass
from lnsgd.measures.curvature.output_curvature import SMALL, WHOLE, Form, OutputCurvature, Root, block_size, forms
from lnsgd.measures.curvature.piecewise_linear import bent_operation, linear_part, operation, place_of, traced
from lnsgd.measures.curvature.problem import Problem, chunks
from lnsgd.measures.curvature.trace_estimators import BlockTraces, Budget
from lnsgd.measures.forward import Inputs, first_examples

# Independent probes of each example in a round, the fewest that have a spread.
_PAIR = 2

# Examples on which the form of the second derivatives is found.
_FEW = 8

# Matrices and signs of the examples that are computed together have at most about this many numbers, half a GiB.
_ENTRIES = 2**26

# Operations for each entry of a matrix of size c that an eigendecomposition takes, divided by c.
_DECOMPOSITION = 25

# Forward passes that a product with the Hessian costs.
_PRODUCT = 6

# Largest number of forms.
_FORMS = 32


class NoGaussNewtonError(ValueError):
    """The trace of the Hessian cannot be taken from the Gauss–Newton matrix, or not at a cost that makes sense.

    Args:
        reason: Why, as a part of a sentence.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"method = 'ggn' cannot be used, because {reason}: use method = 'auto'")
        self.reason = reason


@dataclass(frozen=True)
class _Plan:
    """Findings on the first examples: the form of ∇²ℓ_i by z_i, and the shape of z_i."""

    form: Form
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)

    def examples_at_once(self, probes: int) -> int:
        """Return how many examples fit into memory."""
        return max(1, _ENTRIES // max(self.size * block_size(self.form, self.shape), self.size * probes))


def gauss_newton(
    problem: Problem, budget: Budget, generator: torch.Generator, instead_of: int | None = None
) -> BlockTraces:
    """Estimate Tr (1/n)Σ_i J_iᵀ S_i J_i, S_i = ∇²ℓ_i by z_i, J_i the Jacobian of z_i.

    z are the outputs, or values of which the outputs are a function without weights, such as the logits before a final
    log-softmax, see `linear_part`. With S = RRᵀ and random signs ε, s = Rε has E[s sᵀ] = S, so that ‖J_iᵀs‖² has the
    mean Tr J_iᵀ S_i J_i. One probe is one backward pass, in which every example has its own signs. If the tolerance
    needs more probes than there are numbers in z_i, the unit vectors are used instead of random signs, and the trace is
    exact.

    Args:
        problem: The problem.
        budget: The number of probes.
        generator: Generator of the probes.
        instead_of: Number of products with the Hessian that another method would take: matrices S_i whose decomposition
            takes more operations are refused. By default all that fit into memory are decomposed.

    Raises:
        NoGaussNewtonError: z is not piecewise linear in every weight, see `bent_operation`; or S_i is too large a
            matrix and does not have a form that is known.
    """
    plan = _plan(problem, instead_of)
    spread = _Spread(problem, plan)
    more = _PAIR
    while True:
        left = budget.max_probes - spread.probes
        if plan.size <= budget.max_probes and more >= min(plan.size, left + 1):
            problem.expect(spread.probes + plan.size)
            return _exact(problem, plan)
        if left < _PAIR:
            return spread.estimate()
        problem.expect(spread.probes + min(more, left))
        spread.add(min(more, left), generator)
        found = spread.estimate()
        value = found.values.sum().item()
        known = spread.degrees_of_freedom >= budget.min_probes
        if known and budget.is_reached(value, found.total_error):
            return found
        more = max(_PAIR, _needed(found, value, budget) - found.probes if known else found.probes)


def _needed(found: BlockTraces, value: float, budget: Budget) -> int:
    """Return the probes for the tolerance: a fifth more than the spread asks for, which may be too small by chance."""
    allowed = (budget.rtol * value) ** 2
    never = budget.max_probes + 1
    return ceil(min(1.2 * found.total_error**2 / allowed * found.probes, never)) if allowed else never


def _plan(problem: Problem, instead_of: int | None) -> _Plan:
    """Find z and the form of S_i on the first examples; all processes must find the same.

    Raises:
        NoGaussNewtonError: there is none.
    """
    # Whether this process refuses, and which form it finds; of several forms, the most general one is right for all.
    verdict = torch.zeros(1 + _FORMS, dtype=torch.float64, device=problem.device)
    reason = (
        "as another process finds, the network is not piecewise linear in every single weight, or its loss couples too "
        "many outputs"
    )
    shape = torch.zeros(_FORMS, dtype=torch.float64, device=problem.device)
    for inputs, labels in problem.batches():
        if len(labels):
            found = _look(problem, first_examples(inputs, _FEW), labels[:_FEW], instead_of)
            if isinstance(found, str):
                reason = found
                verdict[0] = 1
            else:
                verdict[1 + forms(found.shape).index(found.form)] = 1
                shape[: len(found.shape)] = torch.tensor(found.shape)
            break
    verdict, shapes = problem.share.reduce(verdict), problem.share.reduce(shape)
    if verdict[0]:
        raise NoGaussNewtonError(reason)
    processes = max(int(verdict.sum()), 1)
    common = tuple(int(size) for size in (shapes / processes).tolist() if size)
    choices = forms(common)
    return _Plan(choices[max((k for k in range(len(choices)) if verdict[1 + k]), default=-1)], common)


def _look(problem: Problem, inputs: Inputs, labels: Tensor, instead_of: int | None) -> _Plan | str:
    """Find z and the form of S_i on some examples, or say why there is none."""
    with traced(problem.model) as trace:
        one = problem.outputs(first_examples(inputs, 1))
    edges = linear_part(one, problem.named)
    outputs = one if len(labels) == 1 else problem.outputs(inputs)
    if edges is not None and not edges:
        return _Plan(WHOLE, tuple(outputs.shape[1:]) or (1,))
    curvature = None if edges is None else _curvature(problem, outputs, problem.losses(outputs, labels))
    if curvature is None:
        node = bent_operation(one, problem.named)
        place = f"{place_of(node, trace)} is not, by its operation {operation(node)}"
        return f"the network would have to be piecewise linear in every single weight, but {place}"
    shape = curvature.shape or (1,)
    for form in forms(shape):
        if _is_affordable(problem, inputs, form, shape, instead_of) and curvature.root(form) is not None:
            return _Plan(form, shape)
    return (
        f"the loss couples the {prod(shape)} outputs of an example in an unknown way, so that {prod(shape)} × "
        f"{prod(shape)} second derivatives of each example would have to be decomposed"
    )


def _is_affordable(
    problem: Problem, inputs: Inputs, form: Form, shape: tuple[int, ...], instead_of: int | None
) -> bool:
    """Say whether matrices of a form fit into memory, and are decomposed sooner than other methods are done."""
    size = block_size(form, shape)
    if size == 1 or prod(shape) <= SMALL:
        return True
    if instead_of is None:
        return prod(shape) * size <= _ENTRIES
    with FlopCounterMode(display=False) as counter:
        problem.outputs(first_examples(inputs, 1))
    cheaper = _DECOMPOSITION * prod(shape) * size**2 <= _PRODUCT * counter.get_total_flops() * instead_of
    return cheaper and prod(shape) * size <= _ENTRIES


def _curvature(problem: Problem, outputs: Tensor, losses: Tensor) -> OutputCurvature | None:
    """Return S_i by z_i, or ``None`` if no z has rows that belong to single examples."""
    edges = linear_part(outputs, problem.named)
    if not edges:
        return None
    curvature = OutputCurvature(losses, edges, outputs)
    if any(len(slope) % len(losses) if slope.ndim else True for slope in curvature.slopes):
        return None
    if edges[0].node is not outputs.grad_fn and losses.requires_grad:
        # The outputs have one row for each example. Of other values it is seen from which rows a loss depends.
        of_first = torch.autograd.grad(losses[0], edges, retain_graph=True, allow_unused=True)
        if any(slope is not None and slope[len(slope) // len(losses) :].any() for slope in of_first):
            return None
    return curvature


class _Spread:
    """Mean and spread of independent probes of every example, accumulated over passes."""

    def __init__(self, problem: Problem, plan: _Plan) -> None:
        self.problem = problem
        self.plan = plan
        self.probes = 0
        self.samples = 0
        # Means over examples: Σ_k t_k by tensor, Σ_k (t_k − t̄)² by tensor and for their sum, and the latter's square.
        self._means = torch.zeros(2 * len(problem.named) + 2, dtype=torch.float64, device=problem.device)
        self._degrees = 0  # Σ over passes of (probes − 1)

    def add(self, probes: int, generator: torch.Generator) -> None:
        """Take at least two more probes, in one pass over the data."""
        # A seed for each pass and each batch, because processes may have different numbers of batches and examples.
        batches = torch.Generator().manual_seed(_seed(generator))
        share = self.problem.share

        def signs_of_batch() -> Callable[[int], Tensor]:
            of_batch = torch.Generator().manual_seed(_seed(batches))

            def signs(examples: int) -> Tensor:
                shape = (examples * share.world, probes, self.plan.size)
                return torch.randint(2, shape, generator=of_batch, dtype=torch.int8)[share.rank :: share.world] * 2 - 1

            return signs

        def moments(values: Tensor) -> Tensor:
            of_all = values.sum(-1).var(0)
            spreads = torch.cat(
                [values.var(0).sum(0), of_all.sum(0, keepdim=True), of_all.square().sum(0, keepdim=True)]
            )
            return torch.cat([values.sum((0, 1)), (probes - 1) * spreads])

        means, self.samples = _over_examples(
            self.problem, self.plan, probes, signs_of_batch, moments, torch.zeros_like(self._means)
        )
        self._means += means
        self.probes += probes
        self._degrees += probes - 1

    @property
    def degrees_of_freedom(self) -> float:
        """Degrees of freedom of the total spread (Satterthwaite): few if a few examples make most of it."""
        spread, squares = self._means[-2:].tolist()
        return self.problem.weight * spread**2 / squares if squares > 0 else 0.0

    def estimate(self) -> BlockTraces:
        """Return the estimate from the probes so far."""
        tensors = len(self.problem.named)
        sums, spreads = self._means[:-1].split([tensors, tensors + 1])
        errors = (spreads / (self._degrees * self.probes * self.problem.weight)).sqrt()
        return BlockTraces(sums / self.probes, errors[:-1], errors[-1].item(), self.probes, self.samples)


def _exact(problem: Problem, plan: _Plan) -> BlockTraces:
    units = torch.eye(plan.size)
    means, samples = _over_examples(
        problem,
        plan,
        plan.size,
        signs_of_batch=lambda: lambda examples: units.expand(examples, -1, -1),
        statistics=lambda values: values.sum((0, 1)),
        sums=torch.zeros(len(problem.named), dtype=torch.float64, device=problem.device),
    )
    return BlockTraces.exact(means, samples)


def _over_examples(
    problem: Problem,
    plan: _Plan,
    probes: int,
    signs_of_batch: Callable[[], Callable[[int], Tensor]],
    statistics: Callable[[Tensor], Tensor],
    sums: Tensor,
) -> tuple[Tensor, int]:
    """Compute the mean over all examples of statistics of ‖J_iᵀ R_i ε_i‖² − ‖J_iᵀ Q_i ε_i‖², S_i = R_iR_iᵀ − Q_iQ_iᵀ.

    Args:
        problem: The problem.
        plan: The form of S_i.
        probes: Number of probes.
        signs_of_batch: Called for every batch, returns a function that is given a number of examples B, the next ones
            of the batch, and returns their signs ε, shape (B, probes, size).
        statistics: Given values (probes, B, T), returns statistics that are summed over parts of the data.
        sums: Zeros in the shape of the statistics.

    Returns:
        The mean and the number of examples.
    """
    gradients = ExampleGradients(problem.model, problem.named, problem.calling)
    samples, scale = 0, 0.0
    at_once = plan.examples_at_once(probes * problem.share.world)
    for inputs, labels in problem.batches():
        signs = signs_of_batch()
        for some, of_them in chunks(inputs, labels, at_most=at_once):
            forward = gradients.forward(some)
            chosen = signs(len(of_them))
            losses = problem.losses(forward.outputs, of_them)
            curvature = _curvature(problem, forward.outputs, losses)
            if curvature is None:  # the outputs do not depend on θ
                nothing = torch.zeros(probes, len(of_them), len(problem.named), dtype=torch.float64)
                bad = 0 * losses.detach().sum().double()
                sums += statistics(nothing.to(problem.device) + bad)
                continue
            root = _root(plan, curvature, scale)
            scale = curvature.scale
            sums += statistics(_quadratic_forms(forward, curvature, root, chosen))
            problem.advance(probes * len(of_them))
        samples += len(labels)
    return problem.mean(sums, samples)


def _root(plan: _Plan, curvature: OutputCurvature, scale: float) -> Root:
    """Return the root of S_i in the form of the first examples, or in a more general one if others need it."""
    if curvature.size == plan.size:
        choices = forms(plan.shape)
        for form in choices[choices.index(plan.form) :]:
            if plan.size * block_size(form, plan.shape) <= _ENTRIES:
                root = curvature.root(form, scale)
                if root is not None:
                    return root
    raise ValueError(
        f"the second derivatives of the loss are {plan.form.kind} for the first examples and not for others: use "
        "method = 'hutchinson'"
    )


def _quadratic_forms(forward: ForwardPass, curvature: OutputCurvature, root: Root, signs: Tensor) -> Tensor:
    """Compute values (probes, B, T); the negative part of a loss that is not convex is probed apart and subtracted."""

    def squared_norms(of_signs: Callable[[Tensor], Tensor], chosen: Tensor) -> Tensor:
        return forward.squared_norms_by(curvature.edges, curvature.parts(of_signs(chosen)))

    values = []
    for one in signs.unbind(1):
        chosen = one.to(curvature.slopes[0])
        value = squared_norms(root.positive, chosen)
        values.append(value if root.negative is None else value - squared_norms(root.negative, chosen))
    return torch.stack(values)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator).item())
