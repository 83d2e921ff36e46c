"""Activation sites: how they are found, and which inputs are observed there."""

import pytest
import torch
from torch import nn

from lnsgd.measures import activation_sites, active_neurons, observe
from lnsgd.models import MLP, CubicPlusLinear


class Nested(nn.Module):
    """Activations of several types at several depths."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        self.block = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh())})
        self.cubic = CubicPlusLinear()
        self.drop = nn.Dropout()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.drop(self.cubic(self.block["inner"](self.stem(x)))))


def test_sites_are_found_by_type_in_order():
    model = Nested()
    sites = activation_sites(model)
    assert list(sites) == ["stem.1", "block.inner.2", "cubic"]
    assert sites["block.inner.2"] is model.block["inner"][2]


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "cubic"])
def test_every_activation_of_an_mlp_is_a_site(activation):
    assert list(activation_sites(MLP([4, 5, 6, 3], activation=activation))) == ["activations.0", "activations.1"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        pytest.param(["stem.*"], ["stem.0", "stem.1"], id="any-type-of-module"),
        pytest.param(["*.inner.2"], ["block.inner.2"], id="star-crosses-dots"),
        pytest.param(["head", "cubic"], ["cubic", "head"], id="model-order-not-pattern-order"),
        pytest.param(["cubic", "c*"], ["cubic"], id="overlapping"),
        pytest.param(["block.inner.[02]"], ["block.inner.0", "block.inner.2"], id="brackets"),
    ],
)
def test_sites_are_found_by_pattern(patterns, expected):
    assert list(activation_sites(Nested(), patterns)) == expected


@pytest.mark.parametrize("patterns", [["missing.*"], ["stem.1", "missing.*"]], ids=["alone", "beside-a-good-one"])
def test_unmatched_pattern_lists_the_modules(patterns):
    with pytest.raises(ValueError, match=r"'missing\.\*' matches no module") as error:
        activation_sites(Nested(), patterns)
    for listed in ("stem.0 (Linear)", "stem.1 (ReLU)", "block.inner.1 (BatchNorm1d)", "head (Linear)"):
        assert listed in str(error.value)


def test_patterns_are_case_sensitive():
    with pytest.raises(ValueError, match="matches no module"):
        activation_sites(Nested(), ["Cubic"])


def test_model_without_activations_lists_its_modules():
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    with pytest.raises(ValueError, match="Sequential calls no activation that can be seen") as error:
        active_neurons(net, [(torch.randn(2, 4), torch.zeros(2))])
    assert "0 (Linear), 1 (Linear)" in str(error.value)


def record(store):
    """An observer that keeps a copy of what it sees."""
    return lambda name, z: store.append((name, z.clone()))


def test_observes_the_inputs_of_each_site_in_order():
    torch.manual_seed(0)
    model, x, seen = Nested().eval(), torch.randn(2, 4), []
    with observe(activation_sites(model), record(seen)):
        outputs = model(x)
    assert [name for name, _ in seen] == ["stem.1", "block.inner.2", "cubic"]
    first = model.stem[0](x)
    second = model.block["inner"][:2](first.relu())
    for (_, found), expected in zip(seen, [first, second, second.tanh()]):
        assert torch.equal(found, expected)
        assert not found.requires_grad
    assert torch.equal(outputs, model(x))


def test_inplace_relu_is_observed_before_it_overwrites():
    torch.manual_seed(0)
    model, x, seen = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True)), torch.randn(5, 4), []
    with torch.no_grad(), observe(activation_sites(model), record(seen)):
        model(x)
    assert torch.equal(seen[0][1], model[0](x))
    assert (seen[0][1] < 0).any()


def test_hooks_are_removed_afterwards():
    model, seen = Nested().eval(), []
    with observe(activation_sites(model), record(seen)):
        pass
    model(torch.randn(2, 4))
    assert seen == []


def test_hooks_are_removed_after_an_error_in_the_model():
    model, seen = Nested().eval(), []
    with pytest.raises(RuntimeError), observe(activation_sites(model), record(seen)):
        model(torch.randn(2, 99))
    model(torch.randn(2, 4))
    assert seen == []


def test_hooks_are_removed_after_an_error_in_the_observer():
    model, calls = Nested().eval(), []

    def failing(name, z):
        calls.append(name)
        raise KeyError(name)

    with pytest.raises(KeyError), observe(activation_sites(model), failing):
        model(torch.randn(2, 4))
    model(torch.randn(2, 4))
    assert calls == ["stem.1"]


def test_other_hooks_stay():
    model, calls = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), []
    model[1].register_forward_pre_hook(lambda module, inputs: calls.append("mine"))
    with observe(activation_sites(model), lambda name, z: None):
        pass
    model(torch.randn(1, 2))
    assert calls == ["mine"]
