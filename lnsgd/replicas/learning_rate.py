"""Learning rates of many steps at once, from an optimizer and a schedule of torch."""

from bisect import bisect_right
from itertools import pairwise

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, StepLR


def check_plain_sgd(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError for anything but SGD, with or without momentum."""
    if type(optimizer) is not SGD:
        raise ValueError(f"replicas are trained by torch.optim.SGD, not by {type(optimizer).__name__}")
    (settings,) = optimizer.param_groups
    for name in ("weight_decay", "dampening", "nesterov", "maximize"):
        if settings[name]:
            raise ValueError(f"replicas are trained by plain SGD or momentum; {name} = {settings[name]} is not offered")


class LearningRate:
    """Learning rate after each number of scheduler steps: constant, or multiplied by γ at milestones.

    Computed as torch's schedulers do, one multiplication after another, so that it has the same bits.

    Args:
        scheduler: ``None`` for a constant rate, `torch.optim.lr_scheduler.StepLR` (with γ = ½ it is
            halved every ``step_size``) or `MultiStepLR`.

    Raises:
        ValueError: another scheduler.
    """

    def __init__(self, scheduler: LRScheduler | None) -> None:
        self.period: int | None = None
        self.milestones: list[int] = []
        self.gamma = 1.0
        if isinstance(scheduler, StepLR):
            self.period, self.gamma = scheduler.step_size, scheduler.gamma
        elif isinstance(scheduler, MultiStepLR):
            self.milestones, self.gamma = sorted(scheduler.milestones.elements()), scheduler.gamma
        elif scheduler is not None:
            raise ValueError(f"replicas take the schedules StepLR and MultiStepLR, not {type(scheduler).__name__}")

    def _drops(self, time: int) -> int:
        return time // self.period if self.period else bisect_right(self.milestones, time)

    def _next_drop(self, time: int) -> int | None:
        if self.period:
            return (time // self.period + 1) * self.period
        return next((milestone for milestone in self.milestones if milestone > time), None)

    def __call__(self, base: float, start: int, stop: int) -> Tensor:
        """Rates at the times ``start`` to ``stop − 1``, float64.

        Args:
            base: The rate at time 0.
            start: First time, in scheduler steps.
            stop: After the last.
        """
        cuts = [start]
        while (drop := self._next_drop(cuts[-1])) is not None and drop < stop:
            cuts.append(drop)
        rates = torch.empty(stop - start, dtype=torch.float64)
        for first, last in pairwise([*cuts, stop]):
            rate = base
            for _ in range(self._drops(first)):
                rate *= self.gamma
            rates[first - start : last - start] = rate
        return rates
