"""Names of the modules and tensors of a compiled network are those of the network before it was compiled."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd
from lnsgd.measures import activation_sites, distance_from_init, trainable_parameters, weights_in_use
from lnsgd.measures.curvature.twice_differentiable import missing_derivatives_named
from lnsgd.measures.nonfinite import first_nonfinite
from lnsgd.measures.pairs.cka import features_before
from lnsgd.measuring import MEASURERS, Subject
from lnsgd.models import MLP

# These are defined for networks of lnsgd only.
SPECIAL = {"curve_shape", "sharpness", "recovery_error", "hidden_units"}
GENERAL = [name for name in MEASURERS if name not in SPECIAL]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5))
        self.head = nn.Linear(5, 3)

    def forward(self, inputs):
        return self.head(torch.relu(self.body(inputs)))


@pytest.fixture(scope="module")
def pair():
    """A network, and the same network with both parts compiled, one of them also within."""
    torch.manual_seed(0)
    plain = Network().double()
    compiled = copy.deepcopy(plain)
    compiled.body[2] = torch.compile(compiled.body[2], backend="eager")
    compiled.body = torch.compile(compiled.body, backend="eager")
    compiled.head = torch.compile(compiled.head, backend="eager")
    assert any("_orig_mod" in name for name in compiled.state_dict())
    return plain, compiled


def tables(pair, names):
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(24, 1, 3, 3).double(), torch.randint(3, (24,)))
    start = {name: value + 1 for name, value in pair[0].state_dict().items()}
    loss = nn.CrossEntropyLoss(reduction="none")
    return [lnsgd.measure(net, DataLoader(data, 8), names, loss=loss, init=start) for net in pair]


@pytest.mark.parametrize("name", GENERAL)
def test_every_measurer_names_a_compiled_network_as_the_plain_one(pair, name):
    plain, compiled = tables(pair, [name])
    assert len(plain)
    pd.testing.assert_frame_equal(compiled, plain, rtol=1e-9)


def test_pure_functions_name_a_compiled_network_as_the_plain_one(pair):
    plain, compiled = pair
    for function in (trainable_parameters, weights_in_use, activation_sites):
        assert list(function(compiled)) == list(function(plain))
    raw = dict(compiled.named_parameters())
    assert distance_from_init(raw, raw).per_tensor.keys() == weights_in_use(plain).keys()
    assert distance_from_init(raw, plain).total == 0.0


@pytest.mark.parametrize("layer", ["body.2", "body._orig_mod.2", "body._orig_mod.2._orig_mod"])
def test_both_names_of_a_module_choose_it(pair, layer):
    assert list(activation_sites(pair[1], [layer])) == ["body.2"]
    assert list(activation_sites(pair[1], after=[layer])) == ["body.2.output"]
    inputs = torch.randn(4, 1, 3, 3).double()
    (features,) = features_before(pair[1], layer, [(inputs, torch.zeros(4))])
    torch.testing.assert_close(features, pair[0].eval().body[:2](inputs))


def test_messages_name_a_compiled_network_as_the_plain_one(pair):
    broken = copy.deepcopy(pair[1])
    with torch.no_grad():
        next(iter(broken.parameters()))[0] = torch.inf
    assert str(first_nonfinite(broken, torch.zeros(1, 1, 3, 3).double())).startswith("body.0.weight has 4 entries")
    with pytest.raises(ValueError, match=r"^body\.2 \(ReLU\) cannot be"), missing_derivatives_named(pair[1]):
        raise RuntimeError("derivative for relu is not implemented")


def test_a_compiled_network_of_lnsgd_is_one_too():
    net, module = MLP([2, 3, 1]), nn.Module()
    module.net = torch.compile(net, backend="eager")
    assert Subject(module).mlp() is net
