"""Activations that cannot be counted are left out and named, or refused; modules that are tried stay as they were."""

import re
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lnsgd.measures import active_neurons, class_associated_neurons, dead_neurons, is_activation, site_firings
from lnsgd.measures.neurons.site_firings import _warn_once

EXAMPLES = 6
LABELS = torch.arange(EXAMPLES) % 3


def inputs(*shape, examples=EXAMPLES):
    return torch.randn(examples, *shape, generator=torch.Generator().manual_seed(0))


class Mixed(nn.Module):
    """A site with the examples first, and one with tokens first, of which there are as many as examples in a batch."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.ReLU(), nn.GELU(), nn.ReLU()

    def forward(self, x):
        return self.last(self.act(self.first(x).transpose(0, 1)).transpose(0, 1))


def warned(function):
    """Return what a function returns, and its warning."""
    _warn_once.cache_clear()
    with pytest.warns(UserWarning, match="not all activations") as caught:
        found = function()
    return found, str(caught[0].message)


def test_a_site_with_as_many_tokens_as_examples_is_not_counted():
    x = inputs(EXAMPLES, 4)
    found, message = warned(lambda: active_neurons(Mixed(), [(x, LABELS)]))
    assert message == "not all activations of Mixed are counted: of act the first dimension is not the examples"
    assert list(found.per_site) == ["first", "last"]
    assert found.per_site["first"].count == (x > 0).flatten(1).sum(1).double().mean().item()


def test_such_a_site_is_refused_if_it_is_asked_for():
    with pytest.raises(ValueError, match=r"act gets shape \(6, 2, 4\) for 2 examples; .* leave it out of `layers`"):
        active_neurons(Mixed(), [(inputs(EXAMPLES, 4), LABELS)], layers=["act"])
    with pytest.raises(ValueError, match=r"act.output gets shape \(6, 2, 4\) .* leave it out of `after`"):
        active_neurons(Mixed(), [(inputs(EXAMPLES, 4), LABELS)], after=["act"])


def test_windows_and_position_biases_of_swin_are_left_out():
    torch.manual_seed(0)
    options = {"patch_size": [4, 4], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": [4, 4]}
    block = torchvision.models.swin_transformer.SwinTransformerBlockV2
    net = torchvision.models.SwinTransformer(**options, num_classes=3, block=block)
    found, message = warned(lambda: active_neurons(net, [(inputs(3, 32, 32), LABELS)]))
    assert list(found.per_site) == ["features.1.0.mlp.1", "features.3.0.mlp.1"]
    assert "features.1.0.attn.cpb_mlp.1" in message


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        pytest.param(nn.GRU(4, 5, batch_first=True), r"within rec \(GRU\) they cannot be seen", id="gru"),
        pytest.param(nn.LSTM(4, 5, batch_first=True), r"within rec \(LSTM\)", id="lstm"),
    ],
)
def test_gates_of_recurrent_layers_are_named(layer, named):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rec = layer

        def forward(self, x):
            return F.relu(self.rec(x)[0])

    found, message = warned(lambda: active_neurons(Recurrent(), [(inputs(7, 4), LABELS)]))
    assert list(found.per_site) == ["relu"]
    assert re.search(named, message)


def test_a_network_of_which_all_is_seen_warns_of_nothing():
    _warn_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        active_neurons(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Softmax(-1)), [(inputs(4), LABELS)])


def test_examples_of_other_lengths_are_refused():
    data = [(inputs(5, 4), LABELS), (inputs(7, 4), LABELS)]
    with pytest.raises(ValueError, match=r"0 gets shape \(6, 7, 4\) after units of shape \(5, 4\); .* one size"):
        dead_neurons(nn.Sequential(nn.ReLU()), data)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(torch.tensor([0, 1, -100, 0, 1, 2]), "label -100 is not a class", id="ignored"),
        pytest.param(torch.zeros(EXAMPLES, 4).long(), r"labels of shape \(6, 4\).* are not classes", id="tokens"),
        pytest.param(torch.rand(EXAMPLES), "are not classes", id="real"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        class_associated_neurons(nn.Sequential(nn.ReLU()), [(inputs(4), labels)])


def test_classes_that_come_later_are_counted_like_those_that_are_known():
    data = [(inputs(4), torch.tensor([0, 1, 0, 1, 0, 1])), (-inputs(4), torch.tensor([4, 0, 4, 1, 2, 2]))]
    grown, known = (site_firings(nn.Sequential(nn.ReLU()), data, classes)["0"] for classes in (None, 5))
    assert torch.equal(grown.fired, known.fired)
    assert grown.examples.tolist() == known.examples.tolist() == [4, 4, 2, 0, 2]


def test_a_module_called_total_is_another_site_than_the_total():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.total, self.act = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.act(-self.total(x))

    assert list(active_neurons(Net(), [(inputs(4), LABELS)]).per_site) == ["total#1", "act"]


class Swish(nn.Module):
    """An activation with a weight that is one number, which counts its calls."""

    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([1.5]))
        self.register_buffer("seen", torch.tensor(0))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        self.last = x.numel()
        torch.rand(1)
        return x * torch.sigmoid(self.beta * x)


def test_a_module_that_is_tried_stays_as_it_was():
    module = Swish()
    state, before = torch.get_rng_state(), dict(vars(module))
    assert is_activation(module)
    assert (module.calls, module.seen.item(), module.training) == (0, 0, True)
    assert vars(module).keys() == before.keys()
    assert torch.equal(torch.get_rng_state(), state)


class Clamped(nn.Module):
    def forward(self, x):
        return x.clamp(-1, 1)


class Cumulative(nn.Module):
    def forward(self, x):
        return x.cumsum(-1).relu()


class Positional(nn.Module):
    def forward(self, x):
        return x + torch.arange(len(x)).sin()


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x + 1


class Failing(nn.Module):
    def forward(self, x):
        raise KeyError(x)


class Stateful(Clamped):
    def __init__(self):
        super().__init__()
        self.history = []


@pytest.mark.parametrize(
    ("module", "is_one"),
    [
        (Clamped(), True),
        (Cumulative(), False),
        (Positional(), False),
        (Doubled(), False),
        (Failing(), False),
        (Stateful(), False),  # not tried, for it might be changed
        (nn.Identity(), False),
        (nn.Softmax(-1), False),
        (nn.LayerNorm(10), False),
        (nn.BatchNorm1d(1), False),
        (nn.CrossEntropyLoss(), False),
        (nn.Hardsigmoid(), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_modules_are_activations_by_what_they_do(module, is_one):
    assert is_activation(module) is is_one
