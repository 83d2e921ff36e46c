"""Operations without right second derivatives in PyTorch: computed otherwise, or refused with the module's name."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from lnsgd.measures import example_gradient_norms, gradient_norm, hessian_trace, implicit_regularizer, top_eigenvalues
from lnsgd.measures.curvature.twice_differentiable import TwiceDifferentiable
from tests.measures.small_problems import Net, generator, vectors
from tests.reference.measures import dense_hessian
from tests.tolerances import EXACT

CE = nn.CrossEntropyLoss(reduction="none")
METHODS = ("auto", "exact", "hutchinson", "hutch++")


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def scores():
    return torch.randn(6, 5) * 2


def bags(**options):
    return lambda: F.embedding_bag(torch.tensor([[0, 8, 3], [3, 3, 1]]), torch.randn(9, 4), **options)


# Values of PyTorch's own implementation.
FUNCTIONS = {
    "hardsigmoid": lambda: F.hardsigmoid(scores()),
    "hardsigmoid-in-place": lambda: nn.Hardsigmoid(inplace=True)(scores()),
    **{
        f"multi-margin-{p}-{reduction}": lambda p=p, reduction=reduction: F.multi_margin_loss(
            scores(), torch.arange(6) % 5, p=p, margin=0.7, weight=torch.rand(5), reduction=reduction
        )
        for p in (1, 2)
        for reduction in ("none", "sum", "mean")
    },
    "multi-margin-of-one": lambda: F.multi_margin_loss(scores()[0], torch.tensor(2)),
    "multilabel-margin": lambda: F.multilabel_margin_loss(
        scores()[:3], torch.tensor([[0, -1, 2, 2, 1], [2, 4, 0, -1, -1], [-1, 0, 1, 2, 3]]), reduction="none"
    ),
    "embedding-bag": bags(),
    "embedding-bag-sum": lambda: bags(
        mode="sum", per_sample_weights=torch.tensor([[0.5, 2, 3], [1, -1, 4]], dtype=torch.float64)
    )(),
    "embedding-bag-max": bags(mode="max", padding_idx=-1),
    "embedding-bag-padded": bags(padding_idx=3),
    "embedding-bag-offsets": lambda: F.embedding_bag(
        torch.tensor([0, 8, 3, 3, 1]), torch.randn(9, 4), torch.tensor([0, 2, 2]), mode="max"
    ),
    "embedding-bag-last-offset": lambda: F.embedding_bag(
        torch.tensor([0, 8, 3, 3, 1]), torch.randn(9, 4), torch.tensor([0, 2, 5]), include_last_offset=True
    ),
    "weight-norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3), dim=1).weight,
    "weight-norm-of-all": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3), dim=None).weight,
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_substitutes_have_the_values_of_pytorch(case):
    torch.manual_seed(1)
    expected = FUNCTIONS[case]()
    torch.manual_seed(1)
    with TwiceDifferentiable():
        found = FUNCTIONS[case]()
    torch.testing.assert_close(found, expected, **EXACT)


def hard(function):
    return Net(lambda net, x: net.out(function(net.a(x))), a=nn.Linear(4, 5), out=nn.Linear(5, 3))


def tokens():
    source = generator(1)
    return torch.randint(9, (12, 4), generator=source), torch.randint(3, (12,), generator=source)


def same_weights(net, other):
    other.load_state_dict(dict(zip(other.state_dict(), net.state_dict().values(), strict=True)))
    return net, other


def pair(case):
    """Return a network with such an operation, and the same function by other operations."""
    if case == "hardsigmoid":
        return same_weights(hard(F.hardsigmoid), hard(lambda h: (h / 6 + 0.5).clamp(0, 1)))
    if case == "embedding-bag":
        bag = nn.Sequential(nn.EmbeddingBag(9, 5, sparse=True), nn.Tanh(), nn.Linear(5, 3))
        mean = Net(lambda net, x: net.out(net.e(x).mean(1).tanh()), e=nn.Embedding(9, 5), out=nn.Linear(5, 3))
        return same_weights(bag, mean)
    sparse = nn.Sequential(nn.Embedding(9, 2, sparse=True, scale_grad_by_freq=True), nn.Flatten(), nn.Linear(8, 3))
    return same_weights(sparse, nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 3)))


@pytest.mark.parametrize("case", ["hardsigmoid", "embedding-bag", "sparse-embedding"])
def test_measures_are_those_of_the_same_function(case):
    net, same = pair(case)
    data = [vectors() if case == "hardsigmoid" else tokens()]
    expected = dense_hessian(same, CE, *data[0])[0].trace() if case == "hardsigmoid" else token_trace(same, *data[0])
    for method in METHODS:
        options = {"rtol": 1e-9} if method == "auto" else {"rtol": 0.2, "generator": generator()}
        found = hessian_trace(net, CE, data, method=method, **options).total
        assert abs(found.value - expected) <= 4 * found.standard_error + 1e-10 * abs(expected), method
    assert gradient_norm(net, CE, data).total == pytest.approx(gradient_norm(same, CE, data).total, rel=1e-10)
    for measure in (lambda n: example_gradient_norms(n, CE, data).total, lambda n: top_eigenvalues(n, CE, data).values):
        torch.testing.assert_close(measure(net), measure(same), rtol=1e-8, atol=0)
    assert implicit_regularizer(net, data) == pytest.approx(implicit_regularizer(same, data), rel=1e-10)
    assert case != "hardsigmoid" or hessian_trace(net, CE, data).method == "ggn"


def token_trace(net, inputs, labels):
    """Compute the trace of the dense Hessian by the weights of a network of tokens."""
    named = dict(net.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def mean_loss(flat):
        weights = {name: part.view_as(p) for part, (name, p) in zip(flat.split(sizes), named.items())}
        return CE(torch.func.functional_call(net, weights, (inputs,)), labels).mean()

    flat = torch.cat([p.detach().flatten() for p in named.values()])
    return torch.autograd.functional.hessian(mean_loss, flat).trace()


def test_margin_losses_have_their_curvature():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert hessian_trace(net, nn.MultiMarginLoss(reduction="none"), [vectors()]).total.value == 0
    inputs, labels = vectors()
    expected, _ = dense_hessian(net, squared_margins, inputs, labels)
    found = hessian_trace(net, nn.MultiMarginLoss(p=2, reduction="none"), [(inputs, labels)], rtol=1e-9)
    assert found.total.value == pytest.approx(expected.trace().item(), rel=1e-10)


def squared_margins(outputs, labels):
    """Compute the multi-class margin loss for p = 2 in another way."""
    own = outputs[torch.arange(len(labels)), labels]
    violations = (1 - own[:, None] + outputs).clamp(min=0).square()
    return (violations * (1 - F.one_hot(labels, 3))).sum(1) / 3


@pytest.mark.parametrize("old", [False, True], ids=["parametrization", "hook"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_weight_norm_has_the_dense_hessian(old):
    wrap = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    net = nn.Sequential(wrap(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))
    inputs, labels = vectors()
    bias, length, direction, *head = net.parameters()

    def mean_loss(flat):
        b, g, v, w, c = (part.view_as(p) for part, p in zip(flat.split(sizes), [bias, length, direction, *head]))
        weight = g * v / v.square().sum(1, keepdim=True).sqrt()
        return F.cross_entropy(F.linear(F.linear(inputs, weight, b).tanh(), w, c), labels)

    sizes = [p.numel() for p in (bias, length, direction, *head)]
    flat = torch.cat([p.detach().flatten() for p in (bias, length, direction, *head)])
    hessian = torch.autograd.functional.hessian(mean_loss, flat)
    found = hessian_trace(net, CE, [(inputs, labels)], method="exact").total.value
    assert found == pytest.approx(hessian.trace().item(), rel=1e-10)
    largest = top_eigenvalues(net, CE, [(inputs, labels)], rtol=1e-8).values.item()
    assert largest == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-7)


class HalfCube(torch.autograd.Function):
    """x³ with a first derivative that is right, and a second one that takes a mixture of examples for constant."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(context, slope):
        (x,) = context.saved_tensors
        return 3 * (x * x.detach()) * slope + 0 * x.sum() + (x.roll(1, 1) - x.roll(1, 1).detach()) * slope


@pytest.mark.parametrize("measure", [*METHODS[1:], "top_eigenvalues"])
def test_products_that_are_not_symmetric_are_refused(measure):
    net = Net(lambda net, x: net.out(HalfCube.apply(net.a(x))), a=nn.Linear(4, 5), out=nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"u·Hv ≠ v·Hu: a \(Linear\)"):
        if measure == "top_eigenvalues":
            top_eigenvalues(net, CE, [vectors()])
        else:
            hessian_trace(net, CE, [vectors()], method=measure)


class RoIAlign(nn.Module):
    def forward(self, x):
        return torchvision.ops.roi_align(x, [torch.tensor([[0.0, 0, 3, 3]])] * len(x), 2)


def ctc(outputs, labels):
    log_probabilities = outputs.log_softmax(1).unsqueeze(1).expand(-1, 4, -1)
    return torch.stack(
        [F.ctc_loss(p.unsqueeze(1), t.view(1, 1) + 1, [4], [1]) for p, t in zip(log_probabilities, labels)]
    )


@pytest.mark.parametrize("method", ["auto", "hutchinson"])
def test_missing_second_derivatives_are_refused_with_the_module(method):
    images = torch.randn(3, 1, 6, 6), torch.arange(3)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), RoIAlign(), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"2 \(RoIAlign\) cannot be differentiated .* of roi_align: ") as refusal:
        hessian_trace(net, CE, [images], method=method, max_probes=16)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"Linear or its loss cannot be differentiated .* of ctc_loss: "):
        hessian_trace(nn.Linear(4, 4), ctc, [vectors()], method=method)


def test_parameters_without_dimensions_are_measured():
    """A scale such as that of ReZero."""
    net = Net(
        lambda net, x: net.out(net.a(x) + net.scale * net.b(net.a(x).detach()).relu()),
        a=nn.Linear(4, 5),
        b=nn.Linear(5, 5),
        scale=nn.Parameter(torch.tensor(0.3)),
        out=nn.Linear(5, 3),
    )
    inputs, labels = vectors()
    expected, slices = dense_hessian(net, CE, inputs, labels)
    found = hessian_trace(net, CE, [(inputs, labels)], method="ggn", rtol=1e-9)
    assert found.total.value == pytest.approx(expected.trace().item(), rel=1e-10)
    assert found.per_tensor["scale"].value == pytest.approx(
        expected[slices["scale"], slices["scale"]].item(), rel=1e-10
    )
    norms = example_gradient_norms(net, CE, [(inputs, labels)]).per_tensor["scale"]
    for x, y, norm in zip(inputs, labels, norms):
        (slope,) = torch.autograd.grad(CE(net(x[None]), y[None]).sum(), net.scale)
        assert norm.item() == pytest.approx(slope.abs().item(), rel=1e-10)


class DetachedExp(torch.autograd.Function):
    """An exponential whose backward pass takes the result of the forward pass as a constant."""

    @staticmethod
    def forward(context, x):
        context.result = x.detach().exp()
        return context.result.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * context.result


class SavedExp(DetachedExp):
    """An exponential whose backward pass can be differentiated."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(context, gradient):
        return gradient * context.saved_tensors[0].exp()


def test_custom_functions_with_a_constant_in_their_backward_are_refused():
    torch.manual_seed(0)
    first, last = nn.Linear(4, 5), nn.Linear(5, 3)
    data = [(torch.randn(6, 4), torch.arange(6) % 3)]

    def net(function):
        between = type("Exp", (nn.Module,), {"forward": lambda self, x: function(x)})()
        return nn.Sequential(first, between, last)

    loss = nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(ValueError, match=r"the second derivative of DetachedExp, .* seems to be wrong"):
        hessian_trace(net(DetachedExp.apply), loss, data)
    right = hessian_trace(net(torch.exp), loss, data, method="exact").total.value
    found = hessian_trace(net(SavedExp.apply), loss, data, method="exact").total.value
    assert found == pytest.approx(right, rel=1e-5)


def test_reentrant_checkpoints_are_named():
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            return self[1](checkpoint(torch.tanh, self[0](x), use_reentrant=True))

    net, data = Checkpointed(nn.Linear(4, 5), nn.Linear(5, 3)), [(torch.randn(6, 4), torch.arange(6) % 3)]
    with pytest.raises(ValueError, match=r"Checkpointed calls .* with use_reentrant=True"):
        hessian_trace(net, nn.CrossEntropyLoss(reduction="none"), data)
