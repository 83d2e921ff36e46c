"""Curvature of losses of positions, and of networks that are called in other ways than with one tensor."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lnsgd.measures import (
    example_gradient_norms,
    gradient_norm,
    hessian_trace,
    implicit_regularizer,
    spectral_density,
    top_eigenvalues,
)
from tests.measures.small_problems import Net, in_processes, part
from tests.reference.measures import dense_hessian

IGNORED = -100
CE = nn.CrossEntropyLoss(reduction="none")


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def network(activation):
    return nn.Sequential(nn.Linear(4, 5), activation(), nn.Linear(5, 3))


def sentences():
    """Tokens of which unequal numbers have labels; the last sentence has none."""
    inputs, labels = torch.randn(5, 6, 4), torch.randint(3, (5, 6))
    for sentence, length in enumerate((6, 2, 4, 1, 0)):
        labels[sentence, length:] = IGNORED
    return inputs, labels


def of_labelled_tokens(outputs, labels):
    """Return the losses of all labelled tokens, one after another."""
    chosen = labels != IGNORED
    return -outputs[chosen].log_softmax(-1).gather(1, labels[chosen][:, None])[:, 0]


def by_token(outputs, labels):
    return F.cross_entropy(outputs.transpose(1, 2), labels, reduction="none")


def of_sentences(outputs, labels):
    """Mean over the labelled tokens of each sentence, NaN if it has none."""
    return by_token(outputs, labels).sum(1) / (labels != IGNORED).sum(1)


@pytest.mark.parametrize("case", ["sentences", "column"])
def test_examples_without_a_label_do_not_count(case):
    net, (inputs, labels) = network(nn.ReLU), sentences()
    loss, kept = of_sentences, torch.arange(5) < 4
    if case == "column":  # one label for each example, shape (B, 1)
        inputs, labels, kept = inputs[:, 0], labels[:, 2:3], labels[:, 2] != IGNORED
        loss = lambda outputs, labels: F.cross_entropy(outputs, labels[:, 0], reduction="none")  # noqa: E731
    hessian, _ = dense_hessian(net, loss, inputs[kept], labels[kept])
    for method in ("ggn", "exact"):
        found = hessian_trace(net, loss, [(inputs, labels)], method=method, rtol=1e-9).total.value
        assert found == pytest.approx(hessian.trace().item(), rel=1e-10)
    gradient = torch.autograd.grad(loss(net(inputs[kept]), labels[kept]).mean(), list(net.parameters()))
    expected = torch.cat([g.flatten() for g in gradient]).norm().item()
    assert gradient_norm(net, loss, [(inputs, labels)]).total == pytest.approx(expected, rel=1e-10)


def test_a_loss_may_write_into_outputs_and_targets():
    def writing(outputs, targets):
        return outputs.mul_(3.0)[:, 0].sub_(targets.sub_(0.5).div_(0.25)).square()

    def pure(outputs, targets):
        return (3 * outputs[:, 0] - (targets - 0.5) / 0.25).square()

    net, data = network(nn.Tanh), [(torch.randn(6, 4), torch.randn(6))]
    for measure in (
        lambda loss: top_eigenvalues(net, loss, data).values,
        lambda loss: hessian_trace(net, loss, data, method="hutchinson").total.value,
        lambda loss: example_gradient_norms(net, loss, data).total,
    ):
        torch.testing.assert_close(measure(writing), measure(pure))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("loss", [CE, by_token], ids=["module", "function"])
def test_the_mean_is_over_labelled_tokens(loss, activation):
    net, (inputs, labels) = network(activation), sentences()
    hessian, _ = dense_hessian(net, of_labelled_tokens, inputs, labels)
    data = list(zip(inputs.split([3, 2]), labels.split([3, 2])))
    found = hessian_trace(net, loss, data, rtol=1e-9)
    assert found.method == ("ggn" if activation is nn.ReLU else "exact")
    assert found.total.value == pytest.approx(hessian.trace().item(), rel=1e-10)
    largest = torch.linalg.eigvalsh(hessian)[-1].item()
    assert top_eigenvalues(net, loss, data, rtol=1e-9).values.item() == pytest.approx(largest, rel=1e-8)
    gradient = torch.autograd.grad(of_labelled_tokens(net(inputs), labels).mean(), list(net.parameters()))
    expected = torch.cat([g.flatten() for g in gradient]).norm().item()
    assert gradient_norm(net, loss, data).total == pytest.approx(expected, rel=1e-10)


def test_the_standard_error_of_a_mean_over_tokens_is_its_spread():
    net, batch = network(nn.ReLU), sentences()
    exact = hessian_trace(net, CE, [batch], rtol=1e-9).total.value
    options = {"rtol": 0.15, "min_probes": 4, "max_probes": 17}
    found = [
        hessian_trace(net, CE, [batch], generator=torch.Generator().manual_seed(seed), **options).total
        for seed in range(40)
    ]
    scores = torch.tensor([(one.value - exact) / one.standard_error for one in found])
    assert scores.abs().max() < 6
    assert 0.6 < scores.square().mean().sqrt() < 1.7


def test_processes_average_over_the_tokens_of_all():
    net, batch = network(nn.ReLU), sentences()
    whole = hessian_trace(net, CE, [batch], rtol=1e-9).total
    copies = [copy.deepcopy(net) for _ in range(2)]
    shares = in_processes(
        lambda share: hessian_trace(copies[share.rank], CE, part([batch], share), rtol=1e-9, share=share).total
    )
    assert [found.value for found in shares] == pytest.approx([whole.value] * 2, rel=1e-10)


def test_data_without_labels_is_refused():
    inputs, labels = sentences()
    with pytest.raises(ValueError, match="no example has a label"):
        hessian_trace(network(nn.ReLU), CE, [(inputs, torch.full_like(labels, IGNORED))])


def forward(net, left, scale):
    hidden = net.body[0](left) * scale
    return {"hidden": hidden, "answer": net.body[2](net.slope(hidden))}


@pytest.mark.parametrize("kind", ["mapping", "tuple"])
def test_outputs_say_how_a_network_is_called(kind):
    net = Net(lambda net, x: net.body[2](net.slope(net.body[0](x) * 2)), body=network(nn.ReLU), slope=nn.PReLU(5))
    other = copy.deepcopy(net)
    other.forward = lambda left, scale: forward(other, left, scale)
    inputs, labels = torch.randn(7, 4), torch.randint(3, (7,))
    scale = torch.full((7, 1), 2.0)
    given = {"left": inputs, "scale": scale} if kind == "mapping" else (inputs, scale)

    def outputs(network, inputs):
        return (network(**inputs) if kind == "mapping" else network(*inputs))["answer"]

    for measure in (
        lambda net, x, **options: hessian_trace(net, CE, [(x, labels)], rtol=1e-9, **options).total.value,
        lambda net, x, **options: hessian_trace(net, CE, [(x, labels)], method="exact", **options).total.value,
        lambda net, x, **options: top_eigenvalues(net, CE, [(x, labels)], **options).values.item(),
        lambda net, x, **options: spectral_density(net, CE, [(x, labels)], probes=1, steps=3, **options).range[1],
        lambda net, x, **options: gradient_norm(net, CE, [(x, labels)], **options).total,
        lambda net, x, **options: example_gradient_norms(net, CE, [(x, labels)], **options).total.sum().item(),
        lambda net, x, **options: implicit_regularizer(net, [(x, labels)], **options),
    ):
        assert measure(other, given, outputs=outputs) == pytest.approx(measure(net, inputs), rel=1e-10)
