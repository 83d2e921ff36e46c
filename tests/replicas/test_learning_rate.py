"""Learning rates computed ahead, against torch's schedulers stepped one by one."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LRScheduler, MultiStepLR, StepLR

from lnsgd.replicas import LearningRate, check_plain_sgd

TIMES = 40

SCHEDULES: dict[str, Any] = {
    "constant": None,
    "halving": partial(StepLR, step_size=5, gamma=0.5),
    "thirds": partial(StepLR, step_size=7, gamma=1 / 3),
    "every-time": partial(StepLR, step_size=1, gamma=0.9),
    "never": partial(StepLR, step_size=1000),
    "growing": partial(StepLR, step_size=3, gamma=1.7),
    "milestones": partial(MultiStepLR, milestones=[4, 9, 30], gamma=0.1),
    "unsorted-milestones": partial(MultiStepLR, milestones=[30, 4, 9], gamma=0.3),
    "repeated-milestones": partial(MultiStepLR, milestones=[4, 4, 9, 9, 9], gamma=0.1),
    "milestone-zero": partial(MultiStepLR, milestones=[0, 6], gamma=0.7),
    "no-milestones": partial(MultiStepLR, milestones=[]),
}


def optimizer(lr: float = 0.1, kind: Any = SGD, **options: Any) -> torch.optim.Optimizer:
    return kind([nn.Parameter(torch.zeros(1))], lr=lr, **options)


def stepped(make: Any, lr: float) -> list[float]:
    """Rates at the times 0, 1, … of a scheduler that is stepped."""
    sgd = optimizer(lr)
    scheduler = make(sgd) if make else None
    rates = []
    for _ in range(TIMES):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        if scheduler:
            scheduler.step()
    return rates


@pytest.mark.parametrize("lr", [0.1, 0.7, 3e-5])
@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_rates_have_the_bits_of_stepped_schedulers(make: Any, lr: float) -> None:
    rate = LearningRate(make(optimizer(1.0)) if make else None)
    expected = stepped(make, lr)
    assert rate(lr, 0, TIMES).tolist() == expected
    for start in range(TIMES - 3):
        assert rate(lr, start, start + 1).tolist() == expected[start : start + 1]
        assert rate(lr, start, start + 3).tolist() == expected[start : start + 3]


def test_other_schedules_are_refused() -> None:
    others: list[LRScheduler] = [
        ExponentialLR(optimizer(), 0.9),
        CosineAnnealingLR(optimizer(), 10),
        LambdaLR(optimizer(), lambda time: 1 / (1 + time)),
    ]
    for scheduler in others:
        with pytest.raises(ValueError, match=f"StepLR and MultiStepLR, not {type(scheduler).__name__}"):
            LearningRate(scheduler)


class MySGD(SGD):
    """An optimizer of a user."""


REFUSED = {
    "adam": (Adam, {}, "torch.optim.SGD, not by Adam"),
    "subclass": (MySGD, {}, "not by MySGD"),
    "weight-decay": (SGD, {"weight_decay": 0.1}, "weight_decay = 0.1"),
    "dampening": (SGD, {"momentum": 0.9, "dampening": 0.5}, "dampening = 0.5"),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}, "nesterov = True"),
    "maximize": (SGD, {"maximize": True}, "maximize = True"),
}


@pytest.mark.parametrize(("kind", "options", "says"), REFUSED.values(), ids=REFUSED)
def test_other_optimizers_are_refused(kind: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_plain_sgd(optimizer(kind=kind, **options))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_plain_sgd_is_accepted(momentum: float) -> None:
    check_plain_sgd(optimizer(momentum=momentum))
