"""The MLP against a NumPy reference; its initializations, names, frozen layers and errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from lnsgd.models import MLP, CubicPlusLinear, HeNormal, Initializer, TorchDefault, Uniform, XavierNormal
from lnsgd.rng import forked, generator
from tests.tolerances import EXACT, STANDARD_ERRORS

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "logistic": lambda z: 1 / (1 + np.exp(-z)),
    "cubic": lambda z: z**3 + 0.1 * z,
}
INITIALIZERS = {
    "torch default": TorchDefault(),
    "xavier normal": XavierNormal(),
    "he normal": HeNormal(),
    "uniform": Uniform(3**0.5),
    "uniform with biases": Uniform(0.5, biases=True),
}


def weights_of(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Forward.


def naive_forward(net, x, activation):
    """Compute the outputs layer by layer and unit by unit."""
    for i, layer in enumerate(net.layers):
        weight = layer.weight.detach().numpy()
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy()
        z = np.array([[np.dot(w, example) + b for w, b in zip(weight, bias)] for example in x])
        x = z if i == len(net.layers) - 1 else activation(z)
    return x


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("widths", [[6, 3], [6, 5, 3], [6, 5, 4, 1]], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_that_of_the_naive_reference(activation, widths, bias):
    net = MLP(widths, bias=bias, activation=activation, init=Uniform(1.0, biases=True)).double()
    x = np.random.default_rng(0).normal(size=(7, 6))
    expected = naive_forward(net, x, ACTIVATIONS[activation])
    np.testing.assert_allclose(net(torch.tensor(x)).detach().numpy(), expected, **EXACT)


def test_inputs_are_flattened():
    net, x = MLP([12, 5, 2]), torch.rand(4, 1, 3, 4)
    assert torch.equal(net(x), net(x.view(4, 12)))


def test_nu_reaches_the_cubic_activation():
    net = MLP([3, 4, 4, 2], activation="cubic", nu=0.7)
    assert [activation.nu for activation in net.activations] == [0.7, 0.7]


# Names and sites.


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_names_of_layers_and_sites(bias):
    net = MLP([4, 3, 3, 2], bias=bias)
    kinds = ["weight", "bias"] if bias else ["weight"]
    assert list(net.state_dict()) == [f"layers.{i}.{kind}" for i in range(3) for kind in kinds]
    sites = [name for name, module in net.named_modules() if isinstance(module, nn.ReLU)]
    assert sites == ["activations.0", "activations.1"]


def test_widths_are_inputs_and_outputs_of_layers():
    assert [tuple(layer.weight.shape) for layer in MLP([784, 600, 50, 10]).layers] == [(600, 784), (50, 600), (10, 50)]


def test_sites_see_the_pre_activations_of_their_layers():
    net, x, inputs = MLP([6, 5, 4, 3]), torch.randn(7, 6), []
    for activation in net.activations:
        activation.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    net(x)
    first = net.layers[0](x)
    assert len(inputs) == 2
    assert torch.equal(inputs[0], first)
    assert torch.equal(inputs[1], net.layers[1](first.relu()))


# Initialization.


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("init", [None, TorchDefault()], ids=["by default", "named"])
def test_torch_default_is_bit_identical_to_linear(init, bias):
    torch.manual_seed(3)
    net = MLP([784, 60, 33, 10], bias=bias, init=init)
    torch.manual_seed(3)
    linears = [nn.Linear(784, 60, bias=bias), nn.Linear(60, 33, bias=bias), nn.Linear(33, 10, bias=bias)]
    assert same(weights_of(net.layers), weights_of(nn.ModuleList(linears)))


@given(st.integers(1, 5000), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_torch_default_is_bit_identical_to_linear_of_any_width(n_in, n_out, seed):
    torch.manual_seed(seed)
    layer = MLP([n_in, n_out]).layers[0]
    torch.manual_seed(seed)
    assert same(weights_of(layer), weights_of(nn.Linear(n_in, n_out)))


# Initializer: distribution of the weights, and of the biases (None: all zero), of a layer with
# fan-in 300 and fan-out 700.
DISTRIBUTIONS = {
    "torch default": (stats.uniform(-(300**-0.5), 2 * 300**-0.5), stats.uniform(-(300**-0.5), 2 * 300**-0.5)),
    "xavier normal": (stats.norm(0, (2 / 1000) ** 0.5), None),
    "he normal": (stats.norm(0, (2 / 300) ** 0.5), None),
    "uniform": (stats.uniform(-(3**0.5), 2 * 3**0.5), None),
    "uniform with biases": (stats.uniform(-0.5, 1.0), stats.uniform(-0.5, 1.0)),
}


def assert_distributed(tensor, distribution):
    """Support, mean and variance within standard errors, and the whole shape by Kolmogorov-Smirnov."""
    sample = tensor.detach().double().flatten().numpy()
    n, variance = len(sample), distribution.var()
    low, high = distribution.support()
    rounding = 1e-6 * np.sqrt(variance)  # the bounds of float32 numbers
    assert low - rounding <= sample.min() <= sample.max() <= high + rounding
    excess = float(distribution.stats(moments="k"))
    assert abs(sample.mean() - distribution.mean()) < STANDARD_ERRORS * np.sqrt(variance / n)
    assert abs(sample.var() - variance) < STANDARD_ERRORS * variance * np.sqrt((excess + 2) / n)
    rare = stats.norm.sf(STANDARD_ERRORS)
    assert rare < stats.kstest(sample, distribution.cdf).pvalue < 1 - rare


@pytest.mark.parametrize("name", INITIALIZERS)
def test_distribution_of_initializer(name):
    layer = nn.Linear(300, 700)
    INITIALIZERS[name](layer, generator(0, "init"))
    weights, biases = DISTRIBUTIONS[name]
    assert_distributed(layer.weight, weights)
    if biases is None:
        assert torch.equal(layer.bias, torch.zeros(700))
    else:
        assert_distributed(layer.bias, biases)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_layers_are_initialized_independently(name):
    first, second = MLP([100, 100, 100], init=INITIALIZERS[name]).layers
    correlation = stats.pearsonr(first.weight.detach().flatten(), second.weight.detach().flatten()).statistic
    assert abs(correlation) * 100 < STANDARD_ERRORS


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializer_of_a_layer_without_bias(name):
    with_bias, without = nn.Linear(5, 4), nn.Linear(5, 4, bias=False)
    for layer in (with_bias, without):
        INITIALIZERS[name](layer, generator(0, "init"))
    assert torch.equal(with_bias.weight, without.weight)


class Constant(Initializer):
    """An initializer that fills a layer with one number."""

    def __init__(self, value):
        self.value = value

    def __call__(self, layer, generator=None):
        for parameter in layer.parameters():
            nn.init.constant_(parameter, self.value)


def test_one_initializer_per_layer():
    net = MLP([4, 3, 3, 2], init=[Constant(1.0), Constant(2.0), Constant(3.0)])
    values = [{p.unique().item() for p in layer.parameters()} for layer in net.layers]
    assert values == [{1.0}, {2.0}, {3.0}]


@pytest.mark.parametrize("name", INITIALIZERS)
def test_keyed_reset_is_construction_in_the_forked_stream(name):
    with forked(5, "init"):
        built = MLP([7, 6, 5, 2], init=INITIALIZERS[name])
    net = MLP([7, 6, 5, 2], init=INITIALIZERS[name])
    assert not same(weights_of(net), weights_of(built))
    before = torch.get_rng_state()
    net.reset_parameters(generator(5, "init"))
    assert same(weights_of(net), weights_of(built))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_reset_without_generator_draws_from_the_global_one(name):
    net = MLP([7, 6, 2], init=INITIALIZERS[name])
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        net.reset_parameters()
        drawn.append(weights_of(net))
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])


# A direct connection.


def test_skip_adds_a_linear_map_of_the_inputs():
    plain, net = MLP([4, 3, 3, 2]), MLP([4, 3, 3, 2], skip=True)
    net.load_state_dict({**plain.state_dict(), "skip.weight": torch.arange(8.0).view(2, 4)})
    x = torch.rand(5, 4)
    torch.testing.assert_close(net(x), plain(x) + x @ torch.arange(8.0).view(2, 4).T)


def test_skip_starts_at_zero_and_draws_nothing():
    with forked(0, "init"):
        plain = MLP([4, 3, 2])
    with forked(0, "init"):
        net = MLP([4, 3, 2], skip=True)
    assert same(weights_of(net), {**weights_of(plain), "skip.weight": torch.zeros(2, 4)})
    net.skip.weight.data.fill_(1.0)
    net.reset_parameters()
    assert not net.skip.weight.any()


@pytest.mark.parametrize(("train_layers", "trained"), [(None, True), ([0], False), ([1], True), ([-1], True)], ids=str)
def test_skip_belongs_to_the_last_layer(train_layers, trained):
    assert MLP([4, 3, 2], skip=True, train_layers=train_layers).skip.weight.requires_grad == trained


# Frozen layers.


@pytest.mark.parametrize(
    "train_layers, trained",
    [
        (None, [0, 1, 2]),
        ([0], [0]),
        ([1], [1]),
        ([-1], [2]),
        ([-3], [0]),
        ([0, -1], [0, 2]),
        ((2, 1, 0), [0, 1, 2]),
        ([1, -2], [1]),
    ],
    ids=str,
)
def test_train_layers_freezes_the_others(train_layers, trained):
    net = MLP([4, 3, 3, 2], train_layers=train_layers)
    expected = {f"layers.{i}.{kind}" for i in trained for kind in ("weight", "bias")}
    assert {name for name, parameter in net.named_parameters() if parameter.requires_grad} == expected
    net(torch.rand(5, 4)).sum().backward()
    assert {name for name, parameter in net.named_parameters() if parameter.grad is not None} == expected


def test_frozen_layers_are_initialized_as_trained_ones():
    with forked(0, "init"):
        frozen = MLP([4, 3, 2], train_layers=[1])
    with forked(0, "init"):
        trained = MLP([4, 3, 2])
    assert same(weights_of(frozen), weights_of(trained))


# Errors name the value.


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"widths": []}, r"MLP: widths = \[\]"),
        ({"widths": [10]}, r"MLP: widths = \[10\]"),
        ({"widths": [4, 0, 2]}, r"MLP: widths = \[4, 0, 2\]"),
        ({"widths": [4, -3, 2]}, r"MLP: widths = \[4, -3, 2\]"),
        ({"activation": "gelu"}, "MLP: activation = 'gelu'.*relu, tanh, logistic, cubic"),
        ({"activation": "cubic", "nu": -0.5}, "CubicPlusLinear: nu = -0.5"),
        ({"init": [TorchDefault()]}, "MLP: 1 initializers for 2 layers"),
        ({"init": [TorchDefault()] * 3}, "MLP: 3 initializers for 2 layers"),
        ({"init": []}, "MLP: 0 initializers for 2 layers"),
        ({"train_layers": [2]}, r"MLP: train_layers = \[2\]; .*0 to 1 \(or -2 to -1\)"),
        ({"train_layers": [0, -3]}, r"MLP: train_layers = \[0, -3\]"),
        ({"train_layers": []}, r"MLP: train_layers = \[\]"),
    ],
    ids=[
        "no width",
        "one width",
        "zero width",
        "negative width",
        "unknown activation",
        "negative nu",
        "too few initializers",
        "too many initializers",
        "no initializer",
        "layer beyond the last",
        "layer before the first",
        "no layer trained",
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"widths": [4, 3, 2], **arguments})


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan")])
def test_a_bad_bound_is_refused(bound):
    with pytest.raises(ValueError, match=f"Uniform: bound = {bound}"):
        Uniform(bound)


@pytest.mark.parametrize("nu", [-0.1, float("nan")])
def test_a_bad_nu_is_refused(nu):
    with pytest.raises(ValueError, match=f"CubicPlusLinear: nu = {nu}"):
        CubicPlusLinear(nu)


# The cubic activation.


@pytest.mark.parametrize("nu", [0.0, 0.1, 2.0])
def test_cubic_plus_linear_value_and_derivatives(nu):
    z = torch.linspace(-3, 3, 25, dtype=torch.float64, requires_grad=True)
    value = CubicPlusLinear(nu)(z)
    (first,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    at = z.detach().numpy()
    np.testing.assert_allclose(value.detach().numpy(), at**3 + nu * at, **EXACT)
    np.testing.assert_allclose(first.detach().numpy(), 3 * at**2 + nu, **EXACT)
    np.testing.assert_allclose(second.numpy(), 6 * at, **EXACT)


def test_cubic_plus_linear_shows_nu():
    assert repr(CubicPlusLinear(0.3)) == "CubicPlusLinear(nu=0.3)"
