"""Computing fewer replicas once some are frozen: which ones at which step, and their tensors."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lnsgd.replicas.engines.base import TrainingState

# Arithmetic that takes about as long as compiling a step: compiling for fewer replicas must save more than that.
_FLOPS_OF_A_COMPILATION = {"cpu": 5e11, "cuda": 1e14}
_FEWEST_STEPS = 1000


def steps_between_widths(parameters: int, batch: int, replicas: int, device: torch.device) -> int:
    """Return the interval of steps at whose multiples the number of computed replicas may change.

    In so many steps all replicas together do about the arithmetic that takes as long as compiling a step: ⌈c / 6PBR⌉
    with c = 5·10¹¹ on a CPU and 10¹⁴ on CUDA, and at least 1000. The factor 6 counts a multiplication and an addition
    for each weight and example in the forward pass, and in the backward pass for the weight and for the input. Where
    weights are shared (convolutions) the arithmetic is more than that, and replicas are dropped later than would pay.

    Args:
        parameters: P, parameters of one replica.
        batch: B, examples in a step of one replica.
        replicas: R.
        device: Device of the run.
    """
    flops = 6 * parameters * batch * replicas
    return max(_FEWEST_STEPS, int(-(-_FLOPS_OF_A_COMPILATION[device.type] // flops)))


def split_at_multiples(first: int, last: int, interval: int) -> Iterator[tuple[int, int]]:
    """Split the steps ``first`` to ``last − 1`` at the multiples of an interval, into pairs (start, stop)."""
    while first < last:
        stop = min(last, (first // interval + 1) * interval)
        yield first, stop
        first = stop


def computed_replicas(frozen_at: Sequence[int], step: int, interval: int) -> list[int]:
    """Return the replicas that are computed at a step, ascending.

    Their number is the smallest of R, ⌈R/2⌉, ⌈R/4⌉, …, 1 that is enough for all replicas that were not frozen before
    the last multiple m of ``interval`` up to the step; the frozen replicas of lowest index fill it up. A replica that
    was frozen at m itself counts as not frozen: whether it was stopped there or diverges in that step cannot be told
    afterwards.

    The result depends on the step and on what happened before m alone. Therefore it is the same whether the steps
    since m were taken in one call or in many, and before or after a resume.

    Args:
        frozen_at: Of each replica, see `TrainingState.frozen_at`; R ≥ 1 numbers.
        step: Number of steps taken before.
        interval: Interval of steps at whose multiples the result may change.
    """
    since = step // interval * interval
    needed = [index for index, end in enumerate(frozen_at) if end < 0 or end >= since]
    width = len(frozen_at)
    while width > 1 and len(needed) <= -(-width // 2):
        width = -(-width // 2)
    kept = set(needed)
    padding = [index for index in range(len(frozen_at)) if index not in kept]
    return sorted(needed + padding[: width - len(needed)])


class NarrowState:
    """A copy of some replicas of a training state, in tensors that keep their address.

    Args:
        whole: The state of all R replicas.
        width: Number W of replicas to copy.

    Attributes:
        state: The copy, with W instead of R; its numbers mean nothing before the first `gather`.
    """

    def __init__(self, whole: TrainingState, width: int) -> None:
        self._whole = whole
        self._indices = torch.arange(width, device=whole.frozen_at.device)
        self.state = TrainingState(
            {name: nn.Parameter(p.detach()[:width].clone(), p.requires_grad) for name, p in whole.parameters.items()},
            {name: v[:width].clone() for name, v in whole.velocity.items()},
            whole.frozen_at[:width].clone(),
        )

    def gather(self, indices: Tensor) -> None:
        """Copy the replicas of these indices (W,), int64, from the whole state."""
        self._indices = indices.to(self._whole.frozen_at.device)
        for whole, narrow in self._pairs():
            narrow.copy_(whole[self._indices])

    def scatter(self) -> None:
        """Copy the replicas that were gathered last back into the whole state."""
        for whole, narrow in self._pairs():
            whole[self._indices] = narrow

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for name, parameter in self._whole.parameters.items():
            yield parameter.detach(), self.state.parameters[name].detach()
        for name, velocity in self._whole.velocity.items():
            yield velocity, self.state.velocity[name]
        yield self._whole.frozen_at, self.state.frozen_at
