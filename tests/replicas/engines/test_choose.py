"""The choice of an engine and the reasons given."""

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, Loss
from lnsgd.models import MLP
from lnsgd.replicas import StepRule, choose_engine
from lnsgd.replicas.engines.general import GeneralEngine
from lnsgd.replicas.engines.mlp_kernel import MLPKernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class MyLoss(CrossEntropy):
    """A loss of a user, which no kernel knows."""


def rule(net: nn.Module, loss: Loss | None = None) -> StepRule:
    return StepRule(net, loss or CrossEntropy(), "hard")


SMALL, DEEP = MLP([4, 6, 3]), MLP([4, 6, 5, 3])
GELU = MLP([4, 6, 3])
GELU.activations[0] = nn.GELU()
DROPOUT = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))

# StepRule, device, what the kernel cannot.
OUTSIDE = {
    "deep": (rule(DEEP), CPU, "2 hidden layers"),
    "no-hidden": (rule(MLP([4, 3])), CPU, "0 hidden layers"),
    "gelu": (rule(GELU), CPU, "activation GELU"),
    "sequential": (rule(nn.Sequential(nn.Linear(4, 3))), CPU, "Sequential"),
    "loss": (rule(SMALL, MyLoss()), CPU, "MyLoss"),
    "cuda": (rule(SMALL), CUDA, "cuda"),
}


def test_auto_chooses_the_kernel_if_it_can() -> None:
    engine, why = choose_engine("auto", rule(SMALL), CPU)
    assert engine is MLPKernel
    assert "one hidden layer" in why


@pytest.mark.parametrize(("made", "device", "says"), OUTSIDE.values(), ids=OUTSIDE)
def test_auto_chooses_the_general_engine_otherwise(made: StepRule, device: torch.device, says: str) -> None:
    engine, why = choose_engine("auto", made, device)
    assert engine is GeneralEngine
    assert why.startswith("the kernel cannot")
    assert says in why


@pytest.mark.parametrize(("made", "device", "says"), OUTSIDE.values(), ids=OUTSIDE)
def test_a_configured_kernel_that_cannot_run_is_refused(made: StepRule, device: torch.device, says: str) -> None:
    with pytest.raises(ValueError, match="engine = kernel cannot run this") as raised:
        choose_engine("kernel", made, device)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_configured_engine_is_chosen() -> None:
    assert choose_engine("kernel", rule(SMALL), CPU) == (MLPKernel, "as configured")
    assert choose_engine("general", rule(SMALL), CPU) == (GeneralEngine, "as configured")


@pytest.mark.parametrize("name", ["auto", "general"])
def test_a_network_that_no_engine_runs_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"engine = general cannot run this.*random in training"):
        choose_engine(name, rule(DROPOUT), CPU)
