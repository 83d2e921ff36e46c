"""Networks that end in functions without weights, and networks with many outputs, against dense Hessians."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lnsgd.measures import hessian_trace
from tests.measures.small_problems import Net, generator, in_processes, mlp, part, vectors
from tests.reference.measures import dense_traces
from tests.tolerances import STANDARD_ERRORS

NLL = nn.NLLLoss(reduction="none")


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def body(outputs=3):
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, outputs))


def segmenter():
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1))


def pixels():
    return torch.randn(4, 2, 6, 6), torch.randint(3, (4, 6, 6))


def tokens():
    return torch.randn(4, 20, 4), torch.randint(3, (4, 20))


def of_tokens(loss):
    return lambda outputs, labels: loss(outputs.transpose(1, 2), labels).mean(1)


def labelled(outputs, labels):
    losses = F.cross_entropy(outputs, labels.where(labels > 0, -100), reduction="none")
    return losses.sum((1, 2)) / (labels > 0).sum((1, 2)).clamp(min=1)


def soft():
    inputs, labels = vectors()
    return inputs, (F.one_hot(labels, 3) + 0.1) / 1.3


def flattened():
    return Net(lambda net, x: F.log_softmax(net.body(x).view(-1, 3), -1).view(*x.shape[:2], 3), body=body())


def tempered():
    """Parameters without a rule for gradients of single examples, in front of the log-softmax."""
    return Net(
        lambda net, x: F.log_softmax(net.t * net.out(net.p(net.a(x))), 1),
        **{"a": nn.Linear(4, 5), "p": nn.PReLU(5), "out": nn.Linear(5, 3), "t": nn.Parameter(torch.tensor(0.7))},
    )


CASES = {
    "log-softmax": (lambda: nn.Sequential(body(), nn.LogSoftmax(1)), NLL, vectors),
    "log-softmax-weights": (tempered, nn.NLLLoss(torch.tensor([1.0, 2, 0.5]).double(), reduction="none"), vectors),
    "log-softmax-by-hand": (
        lambda: Net(lambda net, x: net.body(x) - net.body(x).logsumexp(1, keepdim=True), body=body()),
        NLL,
        vectors,
    ),
    "divergence": (
        lambda: nn.Sequential(body(), nn.LogSoftmax(1)),
        lambda o, t: F.kl_div(o, t, reduction="none").sum(1),
        soft,
    ),
    "sigmoid": (
        lambda: nn.Sequential(body(), nn.Sigmoid()),
        lambda o, t: F.binary_cross_entropy(o, t, reduction="none").mean(1),
        soft,
    ),
    "log-sigmoid": (lambda: nn.Sequential(body(), nn.LogSigmoid()), lambda o, t: -(o * t).sum(1), soft),
    "softmax-squared": (lambda: nn.Sequential(body(), nn.Softmax(1)), lambda o, t: (o - t).square().sum(1), soft),
    "product-of-branches": (
        lambda: Net(lambda net, x: net.a(x) * net.a(x + 1), a=nn.Linear(4, 3)),
        nn.CrossEntropyLoss(reduction="none"),
        vectors,
    ),
    "hundred-classes": (
        lambda: nn.Sequential(body(100), nn.Softmax(1)),
        lambda o, t: NLL(o.log(), t),
        vectors,
    ),
    "pixels": (segmenter, lambda o, t: F.cross_entropy(o, t, reduction="none").mean((1, 2)), pixels),
    "pixels-log-softmax": (
        lambda: nn.Sequential(segmenter(), nn.LogSoftmax(1)),
        lambda o, t: F.nll_loss(o, t, reduction="none").mean((1, 2)),
        pixels,
    ),
    "labelled-pixels": (segmenter, labelled, pixels),
    "tokens": (flattened, of_tokens(NLL), tokens),
}


@pytest.mark.parametrize("case", CASES)
def test_auto_keeps_the_cheap_method(case):
    make, loss, data = CASES[case]
    net, (inputs, labels) = make(), data()
    total, per_tensor = dense_traces(net, loss, inputs, labels)
    found = hessian_trace(net, loss, [(inputs, labels)], rtol=1e-9)
    assert (found.method, found.total.standard_error) == ("ggn", 0)
    assert found.total.value == pytest.approx(total, rel=1e-10)
    for name, value in per_tensor.items():
        assert found.per_tensor[name].value == pytest.approx(value, rel=1e-9, abs=1e-12)
    found = hessian_trace(net, loss, [(inputs, labels)], rtol=0.2, generator=generator())
    assert abs(found.total.value - total) <= STANDARD_ERRORS * found.total.standard_error + 1e-10


def test_a_log_softmax_changes_no_probe():
    net, (inputs, labels) = body(), vectors(40)
    plain = hessian_trace(net, nn.CrossEntropyLoss(reduction="none"), [(inputs, labels)])
    found = hessian_trace(nn.Sequential(net, nn.LogSoftmax(1)), NLL, [(inputs, labels)])
    assert found.total.probes == plain.total.probes
    assert found.total.value == pytest.approx(plain.total.value, rel=1e-10)
    assert found.total.standard_error == pytest.approx(plain.total.standard_error, rel=1e-8)


def soft_dice(outputs, labels):
    probabilities, own = outputs.softmax(1)[:, 1], (labels == 1).double()
    return 1 - 2 * (probabilities * own).sum((1, 2)) / (probabilities + own).sum((1, 2))


BENT = {
    "weights-behind": (lambda: nn.Sequential(body(), nn.LogSoftmax(1), nn.Linear(3, 3)), NLL, vectors),
    "tanh": (lambda: mlp("tanh"), NLL, vectors),
    "tied": (
        lambda: Net(lambda net, x: F.linear(net.a(x).relu(), net.a.weight.T), a=nn.Linear(4, 5)),
        lambda outputs, labels: (outputs - labels[:, None]).square().mean(1),
        vectors,
    ),
    # The examples are along the second axis where the log-softmax begins.
    "second-axis": (
        lambda: Net(lambda net, x: F.log_softmax(net.body(x.transpose(0, 1)), -1).transpose(0, 1), body=body()),
        of_tokens(NLL),
        tokens,
    ),
    "coupled-pixels": (segmenter, soft_dice, pixels),
}


@pytest.mark.parametrize("case", BENT)
def test_auto_takes_another_method_where_the_cheap_one_is_wrong_or_dear(case):
    make, loss, data = BENT[case]
    net, (inputs, labels) = make(), data()
    found = hessian_trace(net, loss, [(inputs, labels)])
    assert found.method == "exact"
    assert found.total.value == pytest.approx(dense_traces(net, loss, inputs, labels)[0], rel=1e-10)


@pytest.mark.parametrize("case", ["log-softmax", "pixels", "hundred-classes"])
def test_processes_give_the_estimate_of_one(case):
    make, loss, data = CASES[case]
    net, batch = make(), data()
    options = {"rtol": 0.1, "min_probes": 4}
    whole = hessian_trace(net, loss, [batch], **options).total
    # A network for each process, because hooks on one network would see the passes of all.
    copies = [copy.deepcopy(net) for _ in range(2)]
    shares = in_processes(
        lambda share: hessian_trace(copies[share.rank], loss, part([batch], share), share=share, **options).total
    )
    for found in shares:
        assert (found.value, found.standard_error) == pytest.approx((whole.value, whole.standard_error), rel=1e-9)
        assert (found.probes, found.samples) == (whole.probes, whole.samples)
