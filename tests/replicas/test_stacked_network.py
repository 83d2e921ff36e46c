"""Networks stacked into one module: each stays what it is alone."""

import pytest
import torch
from torch import Tensor, nn

from lnsgd import rng
from lnsgd.models import MLP
from lnsgd.replicas import StackedNetwork

SEEDS = [3, 0, 11]

NETS = {
    "one-hidden": lambda: MLP([4, 6, 3]),
    "two-hidden-no-bias": lambda: MLP([4, 6, 5, 3], bias=False, activation="tanh"),
    "skip": lambda: MLP([4, 6, 3], skip=True),
    "fixed-output": lambda: MLP([4, 6, 3], train_layers=[0]),
}


class Scaled(nn.Module):
    """Has a buffer, and modules within modules."""

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(3.0))
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))

    def reset_parameters(self) -> None:
        self.body[0].reset_parameters()
        self.body[2].reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * self.factor)


ALL = {**NETS, "with-buffer": Scaled}
EACH = pytest.mark.parametrize("build", ALL.values(), ids=ALL)


def alone(build, seed: int) -> nn.Module:
    with rng.forked(seed, "init"):
        return build()


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@EACH
def test_initial_weights_equal_those_of_each_network_alone(build) -> None:
    stack = StackedNetwork(build(), SEEDS)
    for index, seed in enumerate(SEEDS):
        assert same(stack.replica(index), alone(build, seed))
    assert not same(stack.replica(0), stack.replica(1))


def test_the_networks_own_weights_do_not_matter() -> None:
    net = MLP([4, 6, 3])
    before = [p.clone() for p in net.parameters()]
    assert same(StackedNetwork(net, SEEDS), StackedNetwork(MLP([4, 6, 3]), SEEDS))
    assert all(torch.equal(p, kept) for p, kept in zip(net.parameters(), before))


def test_nothing_is_drawn_from_the_global_generator() -> None:
    state = torch.get_rng_state()
    net = MLP([4, 6, 3])
    torch.set_rng_state(state)
    StackedNetwork(net, SEEDS)
    assert torch.equal(torch.get_rng_state(), state)


@EACH
def test_forward_equals_the_forward_of_each_replica(build) -> None:
    stack = StackedNetwork(build(), SEEDS).double()
    inputs = torch.randn(7, 4, dtype=torch.float64)
    for chosen in ([0, 1, 2], [2, 0], [1]):
        outputs = stack(inputs, torch.tensor(chosen))
        expected = torch.stack([stack.replica(index).double()(inputs) for index in chosen])
        torch.testing.assert_close(outputs, expected, rtol=1e-6, atol=1e-6)
        assert not outputs.requires_grad


@EACH
def test_names_are_the_networks_own(build) -> None:
    net, stack = build(), StackedNetwork(build(), SEEDS)
    assert list(stack.state_dict()) == [f"net.{name}" for name in net.state_dict()]
    assert list(stack.stacked_parameters()) == [name for name, _ in net.named_parameters()]
    for name, parameter in net.named_parameters():
        assert stack.stacked_parameters()[name].shape == (len(SEEDS), *parameter.shape)


def test_frozen_layers_stay_frozen() -> None:
    stack = StackedNetwork(MLP([4, 6, 3], train_layers=[0]), SEEDS)
    trained = {name for name, p in stack.stacked_parameters().items() if p.requires_grad}
    assert trained == {"layers.0.weight", "layers.0.bias"}
    assert {name for name, p in stack.replica(1).named_parameters() if p.requires_grad} == trained


def test_a_replica_is_a_network_of_its_own() -> None:
    stack = StackedNetwork(MLP([4, 6, 3]), SEEDS)
    one, other = stack.replica(0), stack.replica(0)
    with torch.no_grad():
        for p in one.parameters():
            p.zero_()
    assert same(other, stack.replica(0))
    assert same(other, alone(NETS["one-hidden"], SEEDS[0]))


def test_weights_come_back_from_a_state_dict() -> None:
    stack, other = StackedNetwork(MLP([4, 6, 3]), SEEDS), StackedNetwork(MLP([4, 6, 3]), [7, 8, 9])
    assert not same(stack, other)
    other.load_state_dict(stack.state_dict())
    assert all(same(stack.replica(index), other.replica(index)) for index in range(len(SEEDS)))


def test_a_network_without_reset_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential has no reset_parameters"):
        StackedNetwork(nn.Sequential(nn.Linear(4, 3)), SEEDS)
