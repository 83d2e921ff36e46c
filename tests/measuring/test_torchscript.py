"""TorchScript networks are measured like the networks that they were made of, or refused with a remedy."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd
from lnsgd.measures import active_neurons, performance
from lnsgd.measures.pairs.cka import features_before
from lnsgd.measuring import ActiveNeuronsMeasurer, SingularValuesMeasurer

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")

LOSS = nn.CrossEntropyLoss(reduction="none")
MEASURED = [
    "performance",
    "margin",
    "largest_output",
    "distance_from_init",
    "weight_norms",
    "cluster_count",
    "gradient_norm",
    "implicit_regularizer",
    "hessian_trace",
    "top_eigenvalues",
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)).double()


def inner():
    return nn.Sequential(network(), nn.Tanh(), nn.Linear(3, 3).double())


def with_inner_script():
    net = inner()
    net[0] = torch.jit.script(net[0])
    return net


# A TorchScript network, and the network that it was made of.
KINDS = {
    "script": lambda: (torch.jit.script(network()), network()),
    "trace": lambda: (torch.jit.trace(network().eval(), torch.ones(2, 4).double()), network()),
    "within": lambda: (with_inner_script(), inner()),
}


def loader():
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(24, 4).double(), torch.randint(3, (24,))), 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MEASURED)
def test_torchscript_is_measured_like_its_network(kind, name):
    script, plain = KINDS[kind]()
    init = {key: value + 1 for key, value in plain.state_dict().items()}
    found, expected = (lnsgd.measure(net, loader(), name, loss=LOSS, init=init) for net in (script, plain))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["script", "trace"])
@pytest.mark.parametrize("name", ["active_neurons", "dead_neurons", "class_association", "singular_values"])
def test_what_looks_into_torchscript_is_refused(kind, name):
    with pytest.raises(ValueError, match="is TorchScript, in which no activation can be seen; measure the network bef"):
        lnsgd.measure(KINDS[kind]()[0], loader(), name, loss=LOSS)


@pytest.mark.parametrize("kind", [ActiveNeuronsMeasurer, SingularValuesMeasurer])
def test_sites_chosen_within_torchscript_are_refused_by_name(kind):
    with pytest.raises(ValueError, match=r"^0\.2 is TorchScript, in which nothing can be seen"):
        lnsgd.measure(with_inner_script(), loader(), kind(["train"], layers=["0.2", "1"]))


def test_sites_beside_torchscript_are_measured():
    with pytest.warns(UserWarning, match=r"not all activations of Sequential are counted: within 0 \(Rec[^,]*$"):
        assert list(active_neurons(with_inner_script(), loader()).per_site) == ["1"]


@pytest.mark.parametrize(("layer", "named"), [(None, "0.0"), ("0", "0")])
def test_features_within_torchscript_are_refused_by_name(layer, named):
    with pytest.raises(ValueError, match=rf"^{named} is TorchScript, in which no features can be seen; choose"):
        list(features_before(with_inner_script(), layer, loader()))
    assert len(list(features_before(with_inner_script(), "2", loader()))) == 3


class Counts(nn.Module):
    """A module that changes buffers in eval mode, one in place and one by another tensor."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        outputs = self.linear(x)
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * outputs.detach().mean(0)
        return outputs + self.calls


def test_what_torchscript_writes_is_put_back():
    torch.manual_seed(0)
    plain = Counts().double()
    script = torch.jit.script(copy.deepcopy(plain))
    before = {name: value.clone() for name, value in script.state_dict().items()}
    assert performance(script, LOSS, loader()) == performance(plain, LOSS, loader())
    for name, value in script.state_dict().items():
        assert torch.equal(value, before[name])
    assert script.training


def test_half_precision_torchscript_is_measured_in_single_precision():
    script, plain = (kind.to(torch.bfloat16) for kind in KINDS["script"]())
    data = DataLoader(TensorDataset(torch.randn(8, 4).bfloat16(), torch.randint(3, (8,))), 8)
    found, expected = (lnsgd.measure(net, data, "hessian_trace", loss=LOSS) for net in (script, plain))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    assert {value.dtype for value in script.parameters()} == {torch.bfloat16}
