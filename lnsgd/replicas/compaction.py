"""Which replicas an engine still computes once some take no further step, and their tensors beside the others'."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lnsgd.replicas.engine import State

# Arithmetic that takes about as long as compiling a step does: a narrower stack is not worth compiling for less.
_FLOPS_OF_A_COMPILATION = {"cpu": 5e11, "cuda": 1e14}
_FEWEST_STEPS = 1000


def steps_between_widths(parameters: int, batch: int, replicas: int, device: torch.device) -> int:
    """After how many steps the width of a stack is looked at again; it may change at multiples of that.

    The steps in which all replicas do about the arithmetic for which compiling takes as long: ⌈c / 6PBR⌉ with
    c = 5·10¹¹ on a CPU and 10¹⁴ on CUDA, and at least 1000. The 6 are a multiplication and an addition for each weight
    and example, forward, and in the backward pass for the weight and for the input. Where weights are shared
    (convolutions) the arithmetic is more than that, and narrowing begins later than it would pay.

    Args:
        parameters: P, of one replica.
        batch: B, examples of a step of one replica.
        replicas: R.
        device: Where the steps are taken.
    """
    flops = 6 * parameters * batch * replicas
    return max(_FEWEST_STEPS, int(-(-_FLOPS_OF_A_COMPILATION[device.type] // flops)))


def stretches(first: int, last: int, grid: int) -> Iterator[tuple[int, int]]:
    """Steps ``first`` up to but not including ``last``, cut at the multiples of ``grid``, as (start, stop)."""
    while first < last:
        stop = min(last, (first // grid + 1) * grid)
        yield first, stop
        first = stop


def members(frozen_at: Sequence[int], step: int, grid: int) -> list[int]:
    """The replicas that are computed at a step; ascending.

    Their number is the smallest of R, ⌈R/2⌉, ⌈R/4⌉, …, 1 that holds all replicas that were not frozen before
    the last multiple g of ``grid`` up to the step; frozen ones of lowest index fill it up. A replica that was frozen
    at g itself counts as one that was not: whether it was stopped there or diverges in that step cannot be told
    afterwards.

    It is a function of the step and of what happened before g. So it is the same whether the steps since
    g were taken in one call or in many, and before or after a resume.

    Args:
        frozen_at: Of each replica, see `State.frozen_at`; R ≥ 1 of them.
        step: Steps taken before.
        grid: At whose multiples the members may change.
    """
    since = step // grid * grid
    needed = [index for index, end in enumerate(frozen_at) if end < 0 or end >= since]
    width = len(frozen_at)
    while width > 1 and len(needed) <= -(-width // 2):
        width = -(-width // 2)
    kept = set(needed)
    padding = [index for index in range(len(frozen_at)) if index not in kept]
    return sorted(needed + padding[: width - len(needed)])


class CompactState:
    """Some replicas of a state, in tensors of their own that stay at their address.

    Args:
        state: All R replicas.
        width: How many of them.

    Attributes:
        own: Their state, with W = ``width`` in place of R; it means nothing before the first `gather`.
    """

    def __init__(self, state: State, width: int) -> None:
        self._state = state
        self._indices = torch.arange(width, device=state.frozen_at.device)
        self.own = State(
            {name: nn.Parameter(p.detach()[:width].clone(), p.requires_grad) for name, p in state.parameters.items()},
            {name: v[:width].clone() for name, v in state.velocity.items()},
            state.frozen_at[:width].clone(),
        )

    def gather(self, indices: Tensor) -> None:
        """Copies the replicas of these indices (W,), int64, from the state."""
        self._indices = indices.to(self._state.frozen_at.device)
        for whole, own in self._pairs():
            own.copy_(whole[self._indices])

    def scatter(self) -> None:
        """Copies those that were gathered last back into the state."""
        for whole, own in self._pairs():
            whole[self._indices] = own

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for name, parameter in self._state.parameters.items():
            yield parameter.detach(), self.own.parameters[name].detach()
        for name, velocity in self._state.velocity.items():
            yield velocity, self.own.velocity[name]
        yield self._state.frozen_at, self.own.frozen_at
