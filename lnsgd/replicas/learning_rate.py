"""Which optimizers and schedules replicas can have, and the learning rates of many steps at once."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, StepLR


def check_plain_sgd(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the settings of an optimizer, ``lr`` and ``momentum`` among them.

    Args:
        optimizer: The optimizer of the template.

    Raises:
        ValueError: an optimizer other than SGD, with or without momentum, with the same settings for all parameters.
    """
    if type(optimizer) is not SGD:
        raise ValueError(f"replicas are trained by torch.optim.SGD, not by {type(optimizer).__name__}")
    if len(optimizer.param_groups) > 1:
        raise ValueError(f"replicas have one group of parameters; the optimizer has {len(optimizer.param_groups)}")
    settings = optimizer.param_groups[0]
    for name in ("weight_decay", "dampening", "nesterov", "maximize"):
        if settings[name]:
            raise ValueError(f"replicas are trained by plain SGD or momentum; {name} = {settings[name]} is not offered")
    return settings


class LearningRate:
    """Learning rate after each number of scheduler steps: constant, or multiplied by γ at milestones.

    It is computed as by torch's schedulers, one multiplication after another, so that it has the same bits.

    Args:
        scheduler: ``None`` for a constant rate, `torch.optim.lr_scheduler.StepLR` (with γ = ½ it is
            halved every ``step_size``) or ``MultiStepLR``.

    Raises:
        ValueError: another scheduler.
    """

    def __init__(self, scheduler: LRScheduler | None) -> None:
        self.period: int | None = None
        self.milestones: dict[int, float] = {}
        self.gamma = 1.0
        if isinstance(scheduler, StepLR):
            self.period, self.gamma = scheduler.step_size, scheduler.gamma
        elif isinstance(scheduler, MultiStepLR):
            # A milestone that is given twice is one multiplication by γ².
            counts = sorted(scheduler.milestones.items())
            self.milestones = {time: scheduler.gamma**count for time, count in counts}
        elif scheduler is not None:
            raise ValueError(f"replicas take the schedules StepLR and MultiStepLR, not {type(scheduler).__name__}")

    def _drops(self, start: int, stop: int) -> list[tuple[int, float]]:
        """Return the times from ``start`` to ``stop − 1`` at which the rate is multiplied, each with the factor."""
        if self.period:
            first = max(-(-start // self.period), 1) * self.period
            return [(time, self.gamma) for time in range(first, stop, self.period)]
        return [(time, factor) for time, factor in self.milestones.items() if start <= time < stop]

    def __call__(self, base: float, start: int, stop: int) -> Tensor:
        """Return the rates at the times ``start`` to ``stop − 1``, float64.

        Args:
            base: The rate at time 0.
            start: First time, in scheduler steps.
            stop: The time after the last one.
        """
        rate = base
        for _, factor in self._drops(0, start + 1):
            rate *= factor
        rates = torch.full((stop - start,), rate, dtype=torch.float64)
        for time, factor in self._drops(start + 1, stop):
            rate *= factor
            rates[time - start :] = rate
        return rates
