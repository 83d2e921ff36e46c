"""Piecewise linearity in every single weight, against dense Hessian and Gauss–Newton matrices."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from lnsgd.losses import CrossEntropy, SquaredLoss
from lnsgd.measures.curvature.piecewise_linear import bent_operation, operation, place_of, traced
from lnsgd.measures.evaluation import trainable
from lnsgd.models import MatrixFactorization
from tests.measures.small_problems import Net, mlp, narrow_resnet
from tests.reference.curvature import dense_diagonals
from tests.tolerances import EXACT


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def refused_at(net, inputs):
    """Return place and operation by which a network is not piecewise linear; `None` if it is."""
    with traced(net) as trace:
        outputs = net(inputs[:1])
    node = bent_operation(outputs, trainable(net))
    return node and (place_of(node, trace), operation(node))


def diagonals(net, inputs):
    """Return the diagonals of Hessian and Gauss–Newton matrix."""
    classes = net(inputs)[0].numel()
    if classes == 1:
        return dense_diagonals(net, SquaredLoss(), inputs, torch.ones(len(inputs), 1))
    return dense_diagonals(net, CrossEntropy(), inputs, torch.arange(len(inputs)) % classes)


def rows():
    return torch.randn(5, 4)


def images():
    return torch.randn(5, 2, 6, 6)


def tokens():
    return torch.randn(5, 2, 4)


def between(*layers, width=5):
    """A network of layers between two linear ones."""
    return lambda: nn.Sequential(nn.Linear(4, 5), *(layer() for layer in layers), nn.Linear(width, 3))


def inner(function, width=5, inputs=4):
    """A function of the network and the first of its linear layers' outputs, between two of them."""
    return lambda: Net(lambda net, x: net.out(function(net, net.a(x))), a=nn.Linear(inputs, 5), out=nn.Linear(width, 3))


def branches(function, **parts):
    """A function of the network and the outputs of two linear layers."""
    return lambda: Net(
        lambda net, x: function(net, net.a(x), net.b(x)),
        **{"a": nn.Linear(4, 3), "b": nn.Linear(4, 3), **{name: make() for name, make in parts.items()}},
    )


def weight(*shape):
    return nn.Parameter(torch.randn(*shape))


def used(net, inputs):
    """Return the network in eval mode, with BatchNorm statistics that differ from their initial values."""
    with torch.no_grad():
        net.train()(inputs)
    return net.eval()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.norm(self.conv(x))
        out += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        return self.relu(out)


def changed_in_place(net, h):
    h *= net.scale
    h += 1
    h -= net.shift
    h /= 2
    return h.relu_()


def filled_in(net, h):
    return torch.empty_like(h).copy_(h).masked_fill(h < 0, 0.5)


LINEAR = {
    "relu": (between(nn.ReLU), rows),
    "relu-in-place": (between(lambda: nn.ReLU(inplace=True)), rows),
    "relu-functional": (inner(lambda net, h: F.relu(h)), rows),
    "clamp": (inner(lambda net, h: h.clamp(min=0)), rows),
    "clamp-by-a-layer": (branches(lambda net, a, b: torch.clamp(a, max=b)), rows),
    "leaky-relu": (between(nn.LeakyReLU), rows),
    "hardtanh": (between(nn.Hardtanh, nn.ReLU6), rows),
    "rrelu": (between(nn.RReLU), rows),
    "prelu": (between(nn.PReLU), rows),
    "prelu-by-channel": (between(lambda: nn.PReLU(5)), rows),
    "prelu-on-two-branches": (branches(lambda net, a, b: net.prelu(a) + net.prelu(b), prelu=nn.PReLU), rows),
    "threshold": (between(lambda: nn.Threshold(0.1, 0.2)), rows),
    "dropout": (between(nn.ReLU, nn.Dropout), rows),
    "batchnorm": (between(lambda: nn.BatchNorm1d(5), nn.ReLU), rows),
    "batchnorm-no-scale": (between(lambda: nn.BatchNorm1d(5, affine=False), nn.ReLU), rows),
    "deep": (between(nn.ReLU, lambda: nn.Linear(5, 5), nn.ReLU, lambda: nn.Linear(5, 5), nn.ReLU), rows),
    "convolutions": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(3, 3, 2, padding=1, padding_mode="reflect"), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(12, 3)),
        ),
        images,
    ),
    "residual": (lambda: nn.Sequential(Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), images),
    "up-and-down": (
        lambda: nn.Sequential(
            *(nn.ConvTranspose2d(2, 4, 2), nn.PixelShuffle(2), nn.Upsample(scale_factor=2, mode="bilinear")),
            *(nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(4, 3)),
        ),
        images,
    ),
    "resnet-20": (narrow_resnet, lambda: torch.randn(2, 3, 8, 8)),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(6, 2), nn.Flatten(), nn.Linear(6, 3)),
        lambda: torch.randint(6, (5, 3)),
    ),
    "concatenated-slices": (
        branches(lambda net, a, b: net.out(torch.cat([a, b[:, ::2]], 1)), out=lambda: nn.Linear(5, 3)),
        rows,
    ),
    "matrices": (
        lambda: Net(
            lambda net, x: net.out((net.a(x) @ net.w).flatten(1)),
            a=nn.Linear(4, 3),
            w=weight(3, 2),
            out=nn.Linear(4, 3),
        ),
        tokens,
    ),
    "einsum": (
        lambda: Net(lambda net, x: torch.einsum("bi,ij,jk->bk", x, net.u, net.v), u=weight(4, 5), v=weight(5, 3)),
        rows,
    ),
    "divided-by-a-constant": (inner(lambda net, h: (1 - h) / 3 - h / h.new_full((5,), 2)), rows),
    "floor-division": (inner(lambda net, h: h + torch.div(h, 0.3, rounding_mode="floor")), rows),
    "one-number-for-all": (
        lambda: Net(lambda net, x: net.out(x * net.w.expand(4)), w=weight(1), out=nn.Linear(4, 3)),
        rows,
    ),
    "largest": (
        inner(lambda net, h: torch.cat([h.amax(1, keepdim=True), h.min(1, keepdim=True)[0]], 1), width=2),
        rows,
    ),
    "largest-of-products": (
        branches(lambda net, a, b: torch.maximum(a * b, b * net.c.relu()), c=lambda: weight(3)),
        rows,
    ),
    "product-of-separate-layers": (branches(lambda net, a, b: a * b), rows),
    "where": (branches(lambda net, a, b: torch.where(a > 0, a * b, b)), rows),
    "mask": (inner(lambda net, h: h * (h > 0)), rows),
    "indexed-by-its-own-order": (inner(lambda net, h: h.gather(1, h.argsort(1)[:, :2]), width=2), rows),
    "indexed": (inner(lambda net, h: h[:, [0, 2, 2]].flip(1).roll(1, 1), width=3), rows),
    "added-twice": (
        lambda: Net(
            lambda net, x: net.out(net.a(x).relu() - net.a(2 * x + 1).abs()), a=nn.Linear(4, 5), out=nn.Linear(5, 3)
        ),
        rows,
    ),
    "changed-in-place": (
        lambda: Net(
            lambda net, x: net.out(changed_in_place(net, net.a(x))),
            **{"a": nn.Linear(4, 5), "scale": weight(5), "shift": weight(5), "out": nn.Linear(5, 3)},
        ),
        rows,
    ),
    "filled-in": (inner(filled_in), rows),
    "frozen-below-tanh": (
        lambda: nn.Sequential(nn.Linear(4, 5).requires_grad_(False), nn.Tanh(), nn.Linear(5, 3)),
        rows,
    ),
}


@pytest.mark.parametrize("case", LINEAR)
def test_accepted_networks_have_the_diagonal_of_the_gauss_newton_matrix(case):
    make, data = LINEAR[case]
    inputs = data()
    net = used(make(), inputs)
    assert refused_at(net, inputs) is None
    hessian, gauss_newton = diagonals(net, inputs)
    assert hessian.abs().max() > 1e-5
    torch.testing.assert_close(hessian, gauss_newton, **EXACT)


# With the place and the operation that are named.
BENT = {
    "tanh": (between(nn.Tanh), rows, "1 (Tanh)", "Tanh"),
    "tanh-functional": (inner(lambda net, h: torch.tanh(h)), rows, "Net", "Tanh"),
    "tanh-functional-with-names": (
        lambda: Net(lambda net, x: net.out(input=torch.tanh(net.a(input=x))), a=nn.Linear(4, 5), out=nn.Linear(5, 3)),
        rows,
        "Net",
        "Tanh",
    ),
    "tanh-behind-nothing": (
        lambda: Net(lambda net, x: net.same(torch.tanh(net.a(x))), a=nn.Linear(4, 3), same=nn.Identity()),
        rows,
        "Net",
        "Tanh",
    ),
    "mlp-tanh": (lambda: mlp("tanh"), rows, "activations.0 (Tanh)", "Tanh"),
    "gelu": (between(nn.ReLU, lambda: nn.Linear(5, 5), nn.GELU), rows, "3 (GELU)", "Gelu"),
    "silu-in-place": (between(lambda: nn.SiLU(inplace=True)), rows, "1 (SiLU)", "Silu"),
    "softplus": (between(nn.Softplus), rows, "1 (Softplus)", "Softplus"),
    "layernorm": (between(lambda: nn.LayerNorm(5)), rows, "1 (LayerNorm)", "NativeLayerNorm"),
    "groupnorm": (between(lambda: nn.GroupNorm(1, 5)), rows, "1 (GroupNorm)", "NativeGroupNorm"),
    "softmax": (between(lambda: nn.Softmax(1)), rows, "1 (Softmax)", "Softmax"),
    "glu": (between(nn.ReLU, lambda: nn.Linear(5, 10), nn.GLU), rows, "3 (GLU)", "Glu"),
    "instancenorm": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.InstanceNorm2d(2), nn.Flatten(), nn.Linear(32, 3)),
        images,
        "1 (InstanceNorm2d)",
        "NativeBatchNorm",
    ),
    "attention": (
        lambda: Net(
            lambda net, x: net.attention(x, x, x)[0][:, 0], attention=nn.MultiheadAttention(4, 2, batch_first=True)
        ),
        tokens,
        "attention (MultiheadAttention)",
        "Bmm",
    ),
    "lstm": (
        lambda: Net(lambda net, x: net.rnn(x)[0][:, -1], rnn=nn.LSTM(4, 3, batch_first=True)),
        tokens,
        "rnn (LSTM)",
        "Tanh",
    ),
    "weight-norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
        rows,
        "0.parametrizations.weight.0 (_WeightNorm)",
        "WeightNormInterface",
    ),
    "layer-twice-in-a-row": (
        lambda: Net(lambda net, x: net.out(net.a(net.a(x))), a=nn.Linear(4, 4), out=nn.Linear(4, 3)),
        rows,
        "a (Linear)",
        "Addmm",
    ),
    "prelu-twice-in-a-row": (
        lambda: Net(lambda net, x: net.p(net.a(net.p(x))), p=nn.PReLU(init=0.7), a=nn.Linear(4, 3)),
        rows,
        "p (PReLU)",
        "PreluKernel",
    ),
    "tied": (
        lambda: Net(lambda net, x: F.linear(net.a(x).relu(), net.a.weight.T), a=nn.Linear(4, 5)),
        rows,
        "Net",
        "Mm",
    ),
    "factor-times-itself": (
        lambda: MatrixFactorization(3).double(),
        lambda: torch.randn(5, 3, 3),
        "MatrixFactorization",
        "Mm",
    ),
    "product-of-branches-that-share": (
        lambda: Net(lambda net, x: net.a(x) * net.a(x + 1), a=nn.Linear(4, 3)),
        rows,
        "Net",
        "Mul",
    ),
    "times-itself": (inner(lambda net, h: h * h), rows, "Net", "Mul"),
    "times-itself-in-place": (inner(lambda net, h: h.mul_(h.clone())), rows, "Net", "Mul"),
    "scaled-twice": (
        lambda: Net(lambda net, x: net.w * net.a(x * net.w), w=weight(1), a=nn.Linear(4, 3)),
        rows,
        "Net",
        "Mul",
    ),
    "where-of-a-square": (inner(lambda net, h: torch.where(h > 0, h * h, h)), rows, "Net", "Mul"),
    "power": (inner(lambda net, h: h**2), rows, "Net", "Pow"),
    "divided-by-a-weight": (
        lambda: Net(lambda net, x: net.a(x) / net.w, a=nn.Linear(4, 3), w=weight(3)),
        rows,
        "Net",
        "Div",
    ),
    "reciprocal": (
        lambda: Net(lambda net, x: net.a(x * (1 / net.w)), a=nn.Linear(4, 3), w=weight(4)),
        rows,
        "Net",
        "Reciprocal",
    ),
    "normalized": (inner(lambda net, h: h / h.norm(dim=1, keepdim=True)), rows, "Net", "LinalgVectorNorm"),
    "logsumexp": (inner(lambda net, h: h.logsumexp(1, keepdim=True), width=1), rows, "Net", "Logsumexp"),
}


@pytest.mark.parametrize("case", BENT)
def test_refused_networks_have_another_diagonal(case):
    make, data, *place = BENT[case]
    inputs = data()
    net = make().eval()
    assert refused_at(net, inputs) == tuple(place)
    hessian, gauss_newton = diagonals(net, inputs)
    assert (hessian - gauss_newton).abs().max() > 1e-5 * hessian.abs().max()


@pytest.mark.parametrize(
    "norm",
    [
        pytest.param(lambda: nn.BatchNorm2d(2), id="train"),
        pytest.param(lambda: nn.BatchNorm2d(2, track_running_stats=False).eval(), id="no-statistics"),
    ],
)
def test_batchnorm_with_the_statistics_of_the_batch_is_refused(norm):
    net = nn.Sequential(nn.Conv2d(2, 2, 3), norm(), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    assert refused_at(net, images()) == ("1 (BatchNorm2d)", "NativeBatchNorm")


def cube(name):
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(context, slope):
            return 3 * context.saved_tensors[0] ** 2 * slope

    return type(name, (Cube,), {})


@pytest.mark.parametrize("name", ["Cube", "Relu", "View", "Mul"])
def test_a_users_own_operation_is_refused_whatever_its_name(name):
    net = inner(lambda net, h: cube(name).apply(h))()
    assert refused_at(net, rows()) == ("Net", name)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet121", "mobilenet_v2", "squeezenet1_0"])
def test_torchvision_networks_of_relus_are_accepted(name):
    with torch.device("meta"):
        net = getattr(torchvision.models, name)(num_classes=3).eval()
        assert refused_at(net, torch.randn(1, 3, 64, 64)) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("efficientnet_b0", ("features.0.2 (SiLU)", "Silu")),
        ("convnext_tiny", ("features.0.1 (LayerNorm2d)", "NativeLayerNorm")),
        ("mobilenet_v3_small", ("features.0.2 (Hardswish)", "Hardswish")),
    ],
)
def test_other_torchvision_networks_are_refused(name, place):
    with torch.device("meta"):
        net = getattr(torchvision.models, name)(num_classes=3).eval()
        assert refused_at(net, torch.randn(1, 3, 64, 64)) == place


def test_resnet18_entry_by_entry():
    # The Hessian is too large; twelve of its entries are not.
    net = torchvision.models.resnet18(num_classes=3).double().eval()
    inputs, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    parameters = [net.conv1.weight, net.layer1[0].bn1.weight, net.layer3[0].downsample[0].weight, net.fc.weight]
    outputs = net(inputs)
    second = torch.autograd.functional.hessian(lambda o: F.cross_entropy(o, labels), outputs.detach()).view(6, 6)
    slopes = [torch.autograd.grad(o, parameters, retain_graph=True) for o in outputs.flatten()]
    gradient = torch.autograd.grad(F.cross_entropy(outputs, labels), parameters, create_graph=True)
    for k, p in enumerate(parameters):
        jacobian = torch.stack([slope[k].flatten() for slope in slopes])
        for j in jacobian.abs().sum(0).topk(3).indices.tolist():
            entry = torch.autograd.grad(gradient[k].flatten()[j], p, retain_graph=True)[0].flatten()[j]
            torch.testing.assert_close(entry, jacobian[:, j] @ second @ jacobian[:, j], **EXACT)


def test_outputs_that_depend_on_no_parameter_are_accepted():
    net = Net(lambda net, x: net.a(x).detach().tanh(), a=nn.Linear(4, 3))
    assert refused_at(net, rows()) is None


def test_hooks_are_gone_after_an_error():
    net = Net(lambda net, x: net.a(x).undefined, a=nn.Linear(4, 3))
    with pytest.raises(AttributeError), traced(net):
        net(rows())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
