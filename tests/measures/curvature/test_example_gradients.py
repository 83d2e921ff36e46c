"""Norms of single examples' gradients against one gradient after another."""

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import nn

from lnsgd.measures.curvature import example_gradients
from lnsgd.measures.curvature.example_gradients import ExampleGradients
from lnsgd.measures.evaluation import trainable
from tests.measures.small_problems import Net, narrow_resnet
from tests.reference.curvature import example_norms_loop
from tests.tolerances import EXACT

EXAMPLES = 4


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def assert_norms(model, inputs):
    """Check norms for two cotangents from one forward pass; return the parameters without a rule."""
    model.eval()
    forward = ExampleGradients(model, trainable(model)).forward(inputs)
    for _ in range(2):
        cotangents = torch.randn(forward.outputs.shape)
        expected = example_norms_loop(model, inputs, cotangents)
        assert expected.any()
        torch.testing.assert_close(forward.squared_norms(cotangents), expected, **EXACT)
    return set(forward._rest)


def rows(size=4):
    return torch.randn(EXAMPLES, size)


def sequences(length=6, size=4):
    return torch.randn(EXAMPLES, length, size)


def maps(*sides, channels=4):
    return torch.randn(EXAMPLES, channels, *sides)


def moved(norm):
    """Make a BatchNorm whose statistics, scale and shift differ from their initial values."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
    return norm


def frozen(module, *names):
    for name in names:
        getattr(module, name).requires_grad_(False)
    return module


RULED = {
    "linear": (lambda: nn.Linear(4, 3), rows),
    "linear-no-bias": (lambda: nn.Linear(4, 3, bias=False), rows),
    "linear-positions": (lambda: nn.Linear(4, 3), sequences),
    "linear-two-extra-dimensions": (lambda: nn.Linear(5, 3), lambda: maps(3, 5)),
    "linear-frozen-weight": (lambda: frozen(nn.Linear(4, 3), "weight"), rows),
    "linear-frozen-bias": (lambda: frozen(nn.Linear(4, 3), "bias"), sequences),
    "conv1d": (lambda: nn.Conv1d(4, 3, 3), lambda: maps(7)),
    "conv1d-stride-circular": (lambda: nn.Conv1d(4, 3, 3, 2, padding=2, padding_mode="circular"), lambda: maps(7)),
    "conv2d": (lambda: nn.Conv2d(4, 3, 3), lambda: maps(5, 6)),
    "conv2d-no-bias": (lambda: nn.Conv2d(4, 3, (2, 3), bias=False), lambda: maps(5, 6)),
    "conv2d-one-pixel": (lambda: nn.Conv2d(4, 3, 1), lambda: maps(5, 6)),
    # Of six rows and seven columns a stride of two leaves one over, that of three none or one.
    "conv2d-stride": (lambda: nn.Conv2d(4, 3, 3, stride=(2, 3)), lambda: maps(6, 7)),
    "conv2d-stride-padding": (lambda: nn.Conv2d(4, 3, 3, stride=2, padding=(1, 2)), lambda: maps(6, 7)),
    "conv2d-dilation": (lambda: nn.Conv2d(4, 3, 2, dilation=(2, 3), stride=2), lambda: maps(6, 7)),
    "conv2d-groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: maps(5, 5)),
    "conv2d-depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, stride=2, padding=1), lambda: maps(5, 5)),
    "conv2d-same": (lambda: nn.Conv2d(4, 3, (3, 2), padding="same", dilation=2), lambda: maps(5, 5)),
    "conv2d-valid": (lambda: nn.Conv2d(4, 3, 3, padding="valid"), lambda: maps(5, 5)),
    "conv2d-reflect": (lambda: nn.Conv2d(4, 3, 3, padding=(1, 2), padding_mode="reflect"), lambda: maps(5, 5)),
    "conv2d-replicate-same": (
        lambda: nn.Conv2d(4, 6, 4, padding="same", padding_mode="replicate", groups=2),
        lambda: maps(5, 5),
    ),
    "batchnorm1d-rows": (lambda: moved(nn.BatchNorm1d(4)), rows),
    "batchnorm1d-maps": (lambda: moved(nn.BatchNorm1d(4, eps=0.1)), lambda: maps(6)),
    "batchnorm2d": (lambda: moved(nn.BatchNorm2d(4)), lambda: maps(3, 5)),
    "batchnorm3d": (lambda: moved(nn.BatchNorm3d(4)), lambda: maps(2, 3, 2)),
    "batchnorm-no-scale": (lambda: nn.Sequential(nn.Linear(4, 3), moved(nn.BatchNorm1d(3, affine=False))), rows),
    "batchnorm-frozen-scale": (lambda: frozen(moved(nn.BatchNorm2d(4)), "weight"), lambda: maps(3, 5)),
}


@pytest.mark.parametrize("case", RULED)
def test_each_rule(case):
    make, data = RULED[case]
    assert assert_norms(nn.Sequential(make()), data()) == set()


def test_layers_behind_one_another():
    torch.manual_seed(1)
    inplace = nn.Sequential(
        *(nn.Conv2d(4, 3, 3), moved(nn.BatchNorm2d(3)), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True), nn.Linear(5, 2)),
    )
    assert assert_norms(inplace, maps(6, 5)) == set()


def test_resnet_needs_rules_only():
    assert assert_norms(narrow_resnet(), torch.randn(EXAMPLES, 3, 8, 8)) == set()


def test_relu_in_place_behind_a_layer_of_sequences():
    # Where such a layer's output is a view, the graph behind it is another one after the change in place.
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 3))
    assert_norms(net, sequences())


def hooked(layer):
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    layer.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return layer


def patched(layer):
    forward = layer.forward
    layer.forward = lambda x: 3 * forward(x).square()
    return layer


def pruned(layer):
    torch.nn.utils.prune.random_unstructured(layer, "weight", 0.5)
    return layer


def with_a_scale(layer):
    layer.scale = nn.Parameter(torch.ones(1))
    return layer


# Where a layer with a rule is not used as the rule supposes, or has other parameters than those of the rule. With
# each the parameters that are left for one gradient an example.
UNUSUAL = {
    "called-by-name": (lambda: Net(lambda net, x: net.fc(input=x), fc=nn.Linear(4, 3)), rows, set()),
    "called-twice": (
        lambda: Net(lambda net, x: net.fc(net.fc(x).relu()), fc=nn.Linear(4, 4)),
        rows,
        {"fc.weight", "fc.bias"},
    ),
    "weight-used-by-itself": (
        lambda: Net(lambda net, x: F.linear(x, net.fc.weight), fc=nn.Linear(4, 3)),
        rows,
        {"fc.weight"},
    ),
    "called-and-weight-used-by-itself": (
        lambda: Net(lambda net, x: F.linear(net.fc(x).relu(), net.fc.weight.T), fc=nn.Linear(4, 3)),
        rows,
        {"fc.weight", "fc.bias"},
    ),
    "shared-weight": (
        lambda: Net(lambda net, x: net.a(x) + net.b(x + 1), a=(a := nn.Linear(4, 3)), b=sharing(a)),
        rows,
        {"a.weight", "a.bias", "b.bias"},
    ),
    "output-not-used": (
        lambda: Net(lambda net, x: (net.aside(x), net.fc(x))[1], fc=nn.Linear(4, 3), aside=nn.Linear(4, 2)),
        rows,
        set(),
    ),
    "never-called": (lambda: Net(lambda net, x: net.fc(x), fc=nn.Linear(4, 3), aside=nn.Linear(4, 2)), rows, set()),
    "changed-by-a-hook": (lambda: nn.Sequential(hooked(nn.Linear(4, 3))), rows, set()),
    "forward-of-its-own": (lambda: nn.Sequential(patched(nn.Linear(4, 3))), rows, {"0.weight", "0.bias"}),
    "pruned": (lambda: nn.Sequential(pruned(nn.Linear(4, 3))), rows, {"0.weight_orig"}),
    "weight-norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
        rows,
        {"0.bias", "0.parametrizations.weight.original0", "0.parametrizations.weight.original1"},
    ),
    "parameter-added": (
        lambda: Net(lambda net, x: net.fc(x) * net.fc.scale, fc=with_a_scale(nn.Linear(4, 3))),
        rows,
        {"fc.scale"},
    ),
    # As many positions, or prototypes, as there are examples.
    "positions-first": (
        lambda: Net(lambda net, x: net.fc(x.transpose(0, 1)).transpose(0, 1).relu().sum(1), fc=nn.Linear(4, 3)),
        lambda: sequences(EXAMPLES),
        {"fc.weight", "fc.bias"},
    ),
    "prototypes": (
        lambda: Net(
            lambda net, x: x @ net.fc(net.prototypes).T, fc=nn.Linear(4, 4), prototypes=torch.randn(EXAMPLES, 4)
        ),
        rows,
        {"fc.weight", "fc.bias"},
    ),
    "examples-as-positions": (
        lambda: Net(lambda net, x: net.fc(x.unsqueeze(0)).squeeze(0), fc=nn.Linear(4, 3)),
        rows,
        {"fc.weight", "fc.bias"},
    ),
}


def sharing(layer):
    other = nn.Linear(layer.in_features, layer.out_features)
    other.weight = layer.weight
    return other


@pytest.mark.parametrize("case", UNUSUAL)
def test_layers_used_in_other_ways(case):
    make, data, without_rule = UNUSUAL[case]
    assert assert_norms(make(), data()) == without_rule


def control_flow(net, x):
    return net.norm(x) if x.sum() > 0 else 2 * net.norm(x)


OTHER = {
    "layernorm": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)), rows),
    "groupnorm": (lambda: nn.Sequential(nn.Conv2d(4, 4, 2), nn.GroupNorm(2, 4)), lambda: maps(3, 3)),
    "conv3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.Flatten(), nn.Linear(6, 2)),
        lambda: maps(2, 3, 2, channels=2),
    ),
    "transposed-convolution": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 2)), lambda: maps(3, 3)),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 2)),
        lambda: torch.randint(7, (EXAMPLES, 4)),
    ),
    "prelu": (lambda: nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.ReLU(inplace=True)), rows),
    "bare-parameters": (lambda: Net(lambda net, x: x @ net.u @ net.u.T, u=nn.Parameter(torch.randn(4, 2))), rows),
    "transformer": (
        lambda: Net(
            lambda net, x: net.head(net.layer(x)[:, -1]),
            layer=nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
            head=nn.Linear(4, 2),
        ),
        sequences,
    ),
    # Operations that torch.func.vmap does not take.
    "lstm": (lambda: Net(lambda net, x: net.rnn(x)[0][:, -1], rnn=nn.LSTM(4, 3, batch_first=True)), sequences),
    "control-flow": (lambda: Net(control_flow, norm=nn.LayerNorm(4)), rows),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("case", OTHER)
def test_parameters_without_a_rule(case):
    make, data = OTHER[case]
    assert assert_norms(make(), data()) != set()


def test_parameters_without_a_rule_a_few_examples_at_a_time(monkeypatch):
    monkeypatch.setattr(example_gradients, "_ENTRIES", 25)  # of gradients with eight entries
    assert_norms(nn.Sequential(nn.LayerNorm(4)), rows())


OUTPUTS = {
    "one-number": (
        lambda: Net(lambda net, x: net.norm(net.fc(x))[:, 0], fc=nn.Linear(4, 3), norm=nn.LayerNorm(3)),
        rows,
    ),
    "map": (lambda: nn.Sequential(nn.Conv2d(4, 3, 2), nn.GroupNorm(1, 3)), lambda: maps(3, 4)),
    "channels-last": (
        lambda: Net(lambda net, x: net.conv(x).permute(0, 2, 3, 1), conv=nn.Conv2d(4, 3, 2)),
        lambda: maps(3, 4),
    ),
    # One example loses its dimension.
    "squeezed": (
        lambda: Net(lambda net, x: net.norm(net.fc(x)).squeeze(), fc=nn.Linear(4, 3), norm=nn.LayerNorm(3)),
        rows,
    ),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_of_any_shape(case):
    make, data = OUTPUTS[case]
    assert_norms(make(), data())


@pytest.mark.parametrize("examples", [1, 2, 5])
def test_batch_sizes_may_differ_from_the_first(examples):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    gradients = ExampleGradients(net, trainable(net))
    gradients.forward(rows())
    inputs, cotangents = torch.randn(examples, 4), torch.randn(examples, 2)
    found = gradients.forward(inputs).squared_norms(cotangents)
    torch.testing.assert_close(found, example_norms_loop(net, inputs, cotangents), **EXACT)


def test_outputs_that_depend_on_no_parameter_have_no_gradient():
    net = Net(lambda net, x: net.fc(x).detach(), fc=nn.Linear(4, 3)).eval()
    forward = ExampleGradients(net, trainable(net)).forward(rows())
    assert not forward.squared_norms(torch.ones(EXAMPLES, 3)).any()


def test_input_changed_in_place_after_use_raises():
    def forward(net, x):
        doubled = 2 * x
        outputs = net.fc(doubled)
        doubled.add_(1)
        return outputs

    net = Net(forward, fc=nn.Linear(4, 4)).eval()
    forward = ExampleGradients(net, trainable(net)).forward(rows())
    with pytest.raises(ValueError, match="Linear was changed in place"):
        forward.squared_norms(torch.ones(EXAMPLES, 4))


def test_hooks_are_gone_after_an_error():
    net = Net(lambda net, x: net.fc(x).undefined, fc=nn.Linear(4, 3))
    gradients = ExampleGradients(net, trainable(net))
    with pytest.raises(ValueError, match="no attribute 'undefined'"):
        gradients.forward(rows())
    assert not net.fc._forward_hooks
