"""How networks are called: the layouts of inputs, what networks return, and inputs that a network writes into."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from lnsgd.measures.forward import (
    call_network,
    examples_in,
    first_examples,
    functional_outputs,
    outputs_of,
    split_inputs,
    tensors_in,
)

X = torch.arange(12.0).reshape(4, 3)
LAYERS = nn.Linear(3, 2)
RIGHT = LAYERS(X)


class Returns(nn.Module):
    """Returns what a function makes of the outputs of a layer."""

    def __init__(self, make):
        super().__init__()
        self.net = LAYERS
        self.make = make

    def forward(self, x, shift=0.0):
        return self.make(self.net(x + shift))


class Logits(NamedTuple):
    loss: torch.Tensor
    logits: torch.Tensor


@dataclass
class Prediction:
    embedding: None
    prediction: torch.Tensor


RETURNED = {
    "tensor": lambda o: o,
    "tuple": lambda o: (o, o + 1),
    "list": lambda o: [o, o + 1],
    "loss-first": lambda o: (o.mean(), o),
    "classes-first": lambda o: (o.argmax(1), o),
    "dict": lambda o: {"out": o, "aux": o + 1},
    "logits-last": lambda o: OrderedDict(hidden=o + 1, logits=o),
    "named-tuple": lambda o: Logits(o.mean(), o),
    "dataclass": lambda o: Prediction(None, o),
}


@pytest.mark.filterwarnings("ignore:Returns returns")
@pytest.mark.parametrize("make", RETURNED.values(), ids=RETURNED)
def test_one_tensor_is_taken_of_what_a_network_returns(make):
    torch.testing.assert_close(outputs_of(Returns(make), X), RIGHT)


@pytest.mark.filterwarnings("error")
def test_what_is_taken_is_said_once():
    class SaysOnce(Returns):
        pass

    network = SaysOnce(lambda o: {"other": o})
    with pytest.warns(UserWarning, match="SaysOnce returns a dict; measured is its entry 'other'"):
        outputs_of(network, X)
    outputs_of(network, X)  # a warning is an error in this test
    torch.testing.assert_close(outputs_of(network, X, lambda net, x: 2 * net.net(x)), 2 * RIGHT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: o.mean(), r"Returns gives one number for 4 examples, such as their mean loss; say .*outputs="),
        (lambda o: o.T, r"Returns gives outputs of shape \(2, 4\) for 4 examples.*first axis.*outputs="),
        (lambda o: o.argmax(1), "Returns gives torch.int64"),
        (lambda o: o.to(torch.complex64), "Returns gives torch.complex64"),
        (lambda o: {"loss": o.mean()}, "Returns gives dict; measures need one tensor .*outputs="),
        (lambda o: None, "Returns gives NoneType"),
        (lambda o: [{"boxes": o}], "Returns gives list"),
    ],
    ids=["loss", "transposed", "classes", "complex", "loss-in-dict", "none", "detections"],
)
def test_other_results_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        outputs_of(Returns(make), X)
    assert "\n" not in str(error.value)


def test_axis_that_a_network_drops_of_a_single_example_is_put_back():
    dropping = Returns(lambda o: o[:, :1].squeeze())
    torch.testing.assert_close(outputs_of(dropping, X[:1]), outputs_of(dropping, X)[:1])
    keeping = Returns(lambda o: o.squeeze())
    torch.testing.assert_close(outputs_of(keeping, X[:1]), RIGHT[:1])


def test_mappings_are_keyword_arguments_and_tuples_positional_ones():
    network, shift = Returns(lambda o: o), torch.ones(4, 1)
    right = LAYERS(X + 1)
    torch.testing.assert_close(outputs_of(network, {"shift": shift, "x": X}), right)
    torch.testing.assert_close(outputs_of(network, (X, shift)), right)
    torch.testing.assert_close(outputs_of(network, {"image": X}), RIGHT)  # a single entry, whatever its name
    message = re.escape("`forward` of Returns takes (x, shift=0.0), but the inputs are 'x', 'index'; say where a batch")
    with pytest.raises(ValueError, match=message):
        outputs_of(network, {"x": X, "index": torch.arange(4)})


class TakesKeywords(nn.Module):
    def forward(self, **batch):
        return LAYERS(batch["x"])


class TakesBatch(nn.Module):
    def forward(self, batch):
        x, y = batch
        return LAYERS(x).mean() + y


class TakesDictionary(nn.Module):
    def forward(self, batch):
        return LAYERS(batch["x"] if isinstance(batch, dict) else batch.x)


@pytest.mark.parametrize(
    ("network", "inputs", "message"),
    [
        (
            TakesKeywords(),
            X,
            r"`forward` of TakesKeywords takes \(\*\*batch\), but the inputs are a tensor of shape \(4, 3\)",
        ),
        (TakesKeywords(), {"y": X}, r"TakesKeywords does not take inputs of 'y' \(KeyError: 'x'\)"),
        (TakesBatch(), X, r"TakesBatch does not take inputs of a tensor of shape \(4, 3\) \(ValueError: .*unpack"),
        (TakesDictionary(), X, r"TakesDictionary does not take .* \(AttributeError: .* has no attribute 'x'\)"),
        (Returns(None), (X, X, X), r"takes \(x, shift=0.0\), but the inputs are a tuple of shape \(4, 3\), \(4, 3\)"),
    ],
    ids=["keywords", "missing-key", "batch", "dictionary", "too-many"],
)
def test_networks_that_are_called_in_another_way_are_refused_in_one_line(network, inputs, message):
    with pytest.raises(ValueError, match=f"{message}.*outputs=") as error:
        outputs_of(network, inputs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"x": x}, lambda x: (x,)], ids=["tensor", "mapping", "tuple"])
@pytest.mark.parametrize("outputs", [None, lambda network, inputs: network.net(tensor_of(inputs).sub_(1))])
def test_a_network_may_write_into_its_inputs(wrap, outputs):
    class Writing(Returns):
        def forward(self, x):
            return self.net(x.sub_(1))

    given = X.clone()
    for run in (outputs_of, call_network):
        torch.testing.assert_close(run(Writing(None), wrap(given), outputs), LAYERS(X - 1))
    torch.testing.assert_close(given, X)


def tensor_of(inputs):
    return tensors_in(inputs)[0]


def test_outputs_with_other_weights_in_vmap():
    weights = torch.randn(5, 2, 3)

    def run(weight):
        return functional_outputs(Returns(lambda o: (o, o)), {"net.weight": weight}, {"x": X}, lambda n, i: n(**i)[0])

    right = torch.einsum("bi,woi->wbo", X, weights) + LAYERS.bias
    torch.testing.assert_close(torch.func.vmap(run)(weights), right)


def test_inputs_are_split_by_examples():
    inputs = {"x": X, "mask": torch.arange(4), "flag": True}
    assert examples_in(inputs) == 4
    parts = list(split_inputs(inputs, 3))
    assert [part["mask"].tolist() for part in parts] == [[0, 1, 2], [3]]
    torch.testing.assert_close(parts[1]["x"], X[3:])
    assert parts[0]["flag"] is True
    assert [tuple(t.shape) for t in first_examples((X, X[:, 0]), 2)] == [(2, 3), (2,)]
    for bad in ({"x": X, "y": X[:3]}, (X, torch.tensor(3)), {}):
        with pytest.raises(ValueError, match="same number of examples along their first axis"):
            examples_in(bad)
