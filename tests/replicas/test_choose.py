"""Which engine is chosen, and what is said of it."""

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, Loss
from lnsgd.models import MLP
from lnsgd.replicas import Recipe, choose_engine
from lnsgd.replicas.general import GeneralEngine
from lnsgd.replicas.kernel import KernelEngine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class MyLoss(CrossEntropy):
    """Of a user: might be anything."""


def recipe(net: nn.Module, loss: Loss | None = None) -> Recipe:
    return Recipe(net, loss or CrossEntropy(), "hard")


SMALL, DEEP = MLP([4, 6, 3]), MLP([4, 6, 5, 3])
GELU = MLP([4, 6, 3])
GELU.activations[0] = nn.GELU()
DROPOUT = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))

# Recipe, device, what the kernel cannot.
OUTSIDE = {
    "deep": (recipe(DEEP), CPU, "2 hidden layers"),
    "no-hidden": (recipe(MLP([4, 3])), CPU, "0 hidden layers"),
    "gelu": (recipe(GELU), CPU, "activation GELU"),
    "sequential": (recipe(nn.Sequential(nn.Linear(4, 3))), CPU, "Sequential"),
    "loss": (recipe(SMALL, MyLoss()), CPU, "MyLoss"),
    "cuda": (recipe(SMALL), CUDA, "cuda"),
}


def test_the_kernel_where_it_can() -> None:
    engine, why = choose_engine("auto", recipe(SMALL), CPU)
    assert engine is KernelEngine
    assert "one hidden layer" in why


@pytest.mark.parametrize(("made", "device", "says"), OUTSIDE.values(), ids=OUTSIDE)
def test_the_general_one_elsewhere(made: Recipe, device: torch.device, says: str) -> None:
    engine, why = choose_engine("auto", made, device)
    assert engine is GeneralEngine
    assert why.startswith("the kernel cannot")
    assert says in why


@pytest.mark.parametrize(("made", "device", "says"), OUTSIDE.values(), ids=OUTSIDE)
def test_the_kernel_asked_for_where_it_cannot(made: Recipe, device: torch.device, says: str) -> None:
    with pytest.raises(ValueError, match="engine = kernel cannot run this") as raised:
        choose_engine("kernel", made, device)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_asked_for() -> None:
    assert choose_engine("kernel", recipe(SMALL), CPU) == (KernelEngine, "asked for")
    assert choose_engine("general", recipe(SMALL), CPU) == (GeneralEngine, "asked for")


@pytest.mark.parametrize("name", ["auto", "general"])
def test_what_no_engine_can(name: str) -> None:
    with pytest.raises(ValueError, match=r"engine = general cannot run this.*random in training"):
        choose_engine(name, recipe(DROPOUT), CPU)
