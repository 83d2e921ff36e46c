"""The ResNets for CIFAR: against plain functions of their weights; sites, initialization, derivatives, errors."""

from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lnsgd.measures import activation_sites, observe
from lnsgd.models import ResNet20, ResNet32, ResNet44, ResNet56
from lnsgd.models.resnet import PaddedShortcut
from lnsgd.rng import forked, generator
from tests.tolerances import EXACT, STANDARD_ERRORS

# Parameters, as counted in Idelbayev's script, and blocks per stage.
KINDS = {ResNet20: (269_722, 3), ResNet32: (464_154, 5), ResNet44: (658_586, 7), ResNet56: (853_018, 9)}


def small(**options) -> ResNet20:
    """Make a narrow ResNet-20 in float64, with batch normalization that differs from its initial state."""
    net = ResNet20(**{"num_classes": 3, "width": 2, **options}).double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.running_var):
                    values.uniform_(0.5, 1.5)
                for values in (module.bias, module.running_mean):
                    values.normal_(0, 0.3)
    return net


# Forward.


def naive_shortcut(x: np.ndarray, channels: int, stride: int) -> np.ndarray:
    """Compute a convolution pixel by pixel."""
    count, old, height, width = x.shape
    out = np.zeros((count, channels, -(-height // stride), -(-width // stride)))
    first = (channels - old) // 2
    for n in range(count):
        for c in range(old):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    out[n, first + c, i, j] = x[n, c, stride * i, stride * j]
    return out


@pytest.mark.parametrize(
    ("old", "channels", "stride", "size"),
    [(16, 32, 2, (8, 8)), (3, 6, 2, (7, 5)), (1, 2, 2, (1, 1)), (4, 4, 2, (6, 6)), (2, 7, 1, (3, 4))],
    ids=str,
)
def test_shortcut_is_that_of_the_naive_reference(old, channels, stride, size):
    x = np.random.default_rng(0).normal(size=(2, old, *size))
    found = PaddedShortcut(channels - old, stride)(torch.tensor(x))
    assert np.array_equal(found.numpy(), naive_shortcut(x, channels, stride))


def naive_forward(net: ResNet20, x: torch.Tensor, training: bool) -> torch.Tensor:
    """The network as functions of its named weights, after He et al., section 4.2."""
    weights = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    def normalized(x, name):
        running = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, *running, weights[f"{name}.weight"], weights[f"{name}.bias"], training)

    x = F.relu(normalized(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        for block in range(net.blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            first, second = weights[f"{name}.conv1.weight"], weights[f"{name}.conv2.weight"]
            inner = F.relu(normalized(F.conv2d(x, first, stride=stride, padding=1), f"{name}.bn1"))
            inner = normalized(F.conv2d(inner, second, padding=1), f"{name}.bn2")
            x = F.relu(inner + torch.from_numpy(naive_shortcut(x.numpy(), len(second), stride)))
    return F.linear(F.avg_pool2d(x, x.shape[2:]).flatten(1), weights["linear.weight"], weights["linear.bias"])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", [{}, {"channels": 1, "width": 3}], ids=str)
def test_forward_is_that_of_the_naive_reference(options, training):
    torch.manual_seed(0)
    net = small(**options).train(training)
    x = torch.randn(3, options.get("channels", 3), 12, 9, dtype=torch.float64)
    expected = naive_forward(net, x, training)
    torch.testing.assert_close(net(x).detach(), expected, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_number_of_parameters_and_layers(kind):
    net, (parameters, blocks) = kind(), KINDS[kind]
    assert sum(p.numel() for p in net.parameters()) == parameters
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6 * blocks + 2 == int(kind.__name__[-2:])


@pytest.mark.parametrize("options", [{"num_classes": 7}, {"channels": 1}, {"width": 5}], ids=str)
def test_options_set_the_sizes(options):
    net = ResNet20(**options)
    width, channels = options.get("width", 16), options.get("channels", 3)
    assert net(torch.rand(2, channels, 32, 32)).shape == (2, options.get("num_classes", 10))
    assert [len(net.get_submodule(f"layer{i}.2.conv2").weight) for i in (1, 2, 3)] == [width, 2 * width, 4 * width]


# Sites.


def expected_sites(blocks: int) -> list[str]:
    inner = [f"layer{stage}.{block}.relu{i}" for stage in (1, 2, 3) for block in range(blocks) for i in (1, 2)]
    return ["relu", *inner]


@pytest.mark.parametrize("kind", KINDS)
def test_every_site_has_its_name_and_fires_once_in_order(kind):
    net, fired = kind(), []
    sites = activation_sites(net)
    with observe(sites, lambda name, preactivations: fired.append(name)):
        net(torch.rand(1, 3, 32, 32))
    assert list(sites) == fired == expected_sites(KINDS[kind][1])
    assert {type(site) for site in sites.values()} == {nn.ReLU}
    assert len(set(map(id, sites.values()))) == int(kind.__name__[-2:]) - 1


def test_shapes_of_sites():
    net, shapes = ResNet20(), {}
    with observe(activation_sites(net), lambda name, z: shapes.__setitem__(name, tuple(z.shape[1:]))):
        net(torch.rand(1, 3, 32, 32))
    by_stage = {"": (16, 32, 32), "layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}
    assert shapes == {name: by_stage[name.rpartition(".")[0].partition(".")[0]] for name in expected_sites(3)}
    assert np.prod(shapes["layer3.2.relu2"]) == 4096


def test_no_activation_is_called_as_a_function():
    """Silencing the sites leaves no non-linearity but that of batch normalization, which is affine in eval mode."""
    torch.manual_seed(0)
    net = small().eval()
    for name in activation_sites(net):
        net.set_submodule(name, nn.Identity())
    x, y = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(net(x) + net(y), net(x + y) + net(torch.zeros_like(x)), **EXACT)


# Initialization.


def assert_distributed(sample: np.ndarray, distribution) -> None:
    """Mean and variance within standard errors, and the whole shape by Kolmogorov-Smirnov."""
    n, variance, excess = len(sample), distribution.var(), float(distribution.stats(moments="k"))
    assert abs(sample.mean() - distribution.mean()) < STANDARD_ERRORS * sqrt(variance / n)
    assert abs(sample.var() - variance) < STANDARD_ERRORS * variance * sqrt((excess + 2) / n)
    assert stats.kstest(sample, distribution.cdf).pvalue > stats.norm.sf(STANDARD_ERRORS)


@pytest.mark.parametrize(
    ("name", "fan_in"),
    [("conv1", 27), ("layer1.0.conv1", 144), ("layer2.0.conv1", 144), ("layer3.2.conv2", 576), ("linear", 64)],
)
def test_weights_are_he_normal(name, fan_in):
    net = ResNet20(num_classes=100)
    net.reset_parameters(generator(0, "init"))
    weight = net.get_submodule(name).weight.detach().double().flatten().numpy()
    assert_distributed(weight, stats.norm(0, sqrt(2 / fan_in)))


def test_bias_is_that_of_torch():
    net = ResNet20(num_classes=2000)
    net.reset_parameters(generator(0, "init"))
    assert net.linear.bias.abs().max() <= 1 / 8
    assert_distributed(net.linear.bias.detach().double().numpy(), stats.uniform(-1 / 8, 1 / 4))


def test_keyed_reset_is_construction_in_the_forked_stream():
    with forked(5, "init"):
        built = ResNet20(width=4)
    net = ResNet20(width=4)
    net(torch.rand(8, 3, 16, 16))  # moves running statistics
    torch.nn.init.constant_(net.layer2[1].bn2.weight, 3.0)
    before = torch.get_rng_state()
    net.reset_parameters(generator(5, "init"))
    assert torch.equal(torch.get_rng_state(), before)
    assert net.state_dict().keys() == built.state_dict().keys()
    for name, tensor in built.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name


def test_reset_draws_other_weights_for_another_key():
    net = ResNet20(width=4)
    drawn = []
    for seed in (1, 2):
        net.reset_parameters(generator(seed, "init"))
        drawn.append([p.clone() for p in net.parameters() if p.dim() > 1] + [net.linear.bias.clone()])
    assert not any(torch.equal(*pair) for pair in zip(*drawn))


# Derivatives.


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_second_derivatives_are_those_of_differences(training):
    """A Hessian-vector product by double backward, against central differences of the gradient."""
    torch.manual_seed(0)
    net = small().train(training)
    x, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    parameters = list(net.parameters())
    direction = [torch.randn_like(p) for p in parameters]
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}

    def gradient(shift: float, create_graph: bool = False) -> tuple[torch.Tensor, ...]:
        moved = {name: p + shift * d for (name, p), d in zip(net.named_parameters(), direction)}
        loss = F.cross_entropy(torch.func.functional_call(net, {**moved, **before}, x), labels)
        return torch.autograd.grad(loss, parameters, create_graph=create_graph)

    inner = sum((g * d).sum() for g, d in zip(gradient(0.0, create_graph=True), direction))
    product = torch.autograd.grad(inner, parameters)
    step = 1e-6  # so small that hardly an activation changes its sign
    for found, plus, minus in zip(product, gradient(step), gradient(-step)):
        torch.testing.assert_close(found, (plus - minus) / (2 * step), rtol=1e-4, atol=1e-5)


# Errors.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", ["num_classes", "channels", "width"])
def test_refuses_sizes_below_one(kind, option):
    with pytest.raises(ValueError, match=f"^{kind.__name__}: {option} = 0; it must be at least 1$"):
        kind(**{option: 0})


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8), (2, 192)], ids=str)
def test_refuses_inputs_that_are_no_such_images(shape):
    with pytest.raises(ValueError, match=r"ResNet20: inputs have shape .* \(batch, 3, height, width\)"):
        ResNet20(width=2)(torch.rand(shape))
