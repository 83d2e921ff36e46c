"""In evaluation mode a network is one function, and nothing that its forward passes write stays."""

import random
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lnsgd import measures
from lnsgd.measures.evaluation import evaluation_mode, left_alone
from lnsgd.measuring import Measurement, Measurer, PlainContext, Source, Subject

LOSS = nn.CrossEntropyLoss(reduction="none")


class Head(nn.Module):
    """A network on features that a subclass computes, with a module that it does not write to."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.features(self.layer(x))))


class RunningBuffer(Head):
    """Running statistics that are written in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("count", torch.tensor(0))

    def features(self, h):
        self.mean.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
        self.count += 1
        return (h - self.mean) * self.mean.cosh()  # the buffer is saved for the backward pass


class ReplacedBuffer(RunningBuffer):
    """Running statistics that are new tensors."""

    def features(self, h):
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return (h - self.mean) * self.mean.cosh()


class DataWrittenBuffer(RunningBuffer):
    """Running statistics that are written without a trace in the version of the tensor."""

    def features(self, h):
        self.mean.data.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
        return (h - self.mean) * self.mean.cosh()


class PlainAttributes(Head):
    """Running statistics that are attributes: a tensor, a number, a list, generators of its own."""

    def __init__(self):
        super().__init__()
        self.mean, self.scale, self.kept = torch.zeros(5), 1.0, [torch.zeros(5)]
        self.generator = torch.Generator().manual_seed(0)
        self.numpy, self.python = np.random.default_rng(0), random.Random(0)

    def features(self, h):
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        self.scale *= 1.1
        self.kept[0] += 0.1
        self.kept.append(h.detach().mean(0))
        noise = torch.randn(5, generator=self.generator) + self.numpy.normal() + self.python.random()
        return (h - self.mean) * self.scale + sum(self.kept) + noise


class PlainObjects(Head):
    """Running statistics in an object, in an array, and in containers within containers."""

    def __init__(self):
        super().__init__()
        self.statistics = types.SimpleNamespace(mean=torch.zeros(5), calls=0)
        self.array = np.zeros(5, dtype=np.float32)
        self.nested = {"of": ({"mean": torch.zeros(5)}, [[]])}

    def features(self, h):
        mean, (within, (calls,)) = h.detach().mean(0), self.nested["of"]
        self.statistics.mean.mul_(0.9).add_(mean, alpha=0.1)
        self.statistics.calls += 1
        self.array += mean.numpy()
        within["mean"] += mean
        calls.append(1)
        shift = self.statistics.mean + torch.from_numpy(self.array.copy()) + within["mean"]
        return (h - shift) * self.statistics.calls * len(calls)


class MaxNorm(Head):
    """An embedding whose weights are renormalized in a forward pass."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 5, max_norm=0.5)

    def features(self, h):
        return h + self.embedding(h.detach().sum(1).abs().long() % 20)


class ClampedWeights(Head):
    """Weights that are clamped before they are used, and saved for the backward pass."""

    def features(self, h):
        self.head.weight.data.clamp_(-0.2, 0.2)
        return h


class ReplacedWeights(Head):
    """Weights whose memory is replaced."""

    def features(self, h):
        self.head.weight.data = F.normalize(self.head.weight.data)
        return h


class BatchNormInTraining(Head):
    """A batch normalization that stays in training mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def features(self, h):
        return self.norm.train()(h)


WRITING = [
    RunningBuffer,
    ReplacedBuffer,
    DataWrittenBuffer,
    PlainAttributes,
    PlainObjects,
    MaxNorm,
    ClampedWeights,
    ReplacedWeights,
    BatchNormInTraining,
]


def made(kind):
    torch.manual_seed(0)
    return kind()


def batches(number=3):
    torch.manual_seed(1)
    return [(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(number)]


def state_of(net):
    """Return the bits of everything that a network holds, and the objects that hold them."""
    registered = [*net.named_parameters(), *net.named_buffers()]
    found = {name: (id(value), value.detach().clone()) for name, value in registered}
    for name, value in vars(net).items():
        if isinstance(value, torch.Tensor):
            found[name] = id(value), value.clone()
        elif isinstance(value, list):
            found[name] = id(value), torch.stack(value)
        elif isinstance(value, float):
            found[name] = 0, torch.tensor(value)
    if isinstance(net, PlainObjects):
        within, calls = net.nested["of"]
        parts = net.statistics.mean, net.array, within["mean"], net.statistics.calls, len(calls[0])
        found |= {str(k): (0, torch.as_tensor(part).clone()) for k, part in enumerate(parts)}
    if hasattr(net, "generator"):
        numpy_state = net.numpy.bit_generator.state["state"]["state"]
        found["generator"] = 0, net.generator.get_state()
        found["others"] = 0, torch.tensor([numpy_state % 997, net.python.getstate()[1][-1]])
    return found


def same(one, other):
    return one.keys() == other.keys() and all(
        mine == its and torch.equal(value, other_value)
        for (mine, value), (its, other_value) in ((one[name], other[name]) for name in one)
    )


@pytest.mark.parametrize("kind", WRITING)
@pytest.mark.parametrize("gradients", [False, True], ids=["no-grad", "grad"])
def test_every_pass_computes_the_same_function_and_leaves_no_trace(kind, gradients):
    net, (x, _) = made(kind), batches(1)[0]
    before = state_of(net)
    first = made(kind).eval()(x)
    with torch.set_grad_enabled(gradients), evaluation_mode(net):
        outputs = [net(x) for _ in range(3)]
    assert all(torch.equal(found, first) for found in outputs)
    assert same(state_of(net), before)


@pytest.mark.parametrize("kind", [kind for kind in WRITING if kind is not BatchNormInTraining])
def test_derivatives_are_those_of_single_passes(kind):
    """The gradient of a sum of two passes, whose graphs both exist, is the sum of the gradients of single passes."""
    net, data = made(kind), batches(2)
    expected = 0
    for x, _ in data:
        single = made(kind).eval()
        expected = expected + torch.autograd.grad(single(x).square().sum(), single.head.weight)[0]
    with evaluation_mode(net):
        outputs = [net(x) for x, _ in data]
        found = torch.autograd.grad(sum(output.square().sum() for output in outputs), net.head.weight)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", [kind for kind in WRITING if kind is not BatchNormInTraining])
def test_measures_do_not_depend_on_the_order_of_the_batches(kind):
    net, data = made(kind), batches(2)
    before = state_of(net)
    measured = [
        lambda given: measures.performance(net, LOSS, given).loss,
        lambda given: measures.gradient_norm(net, LOSS, given).total,
        lambda given: measures.hessian_trace(net, LOSS, given, method="exact").total.value,
        lambda given: measures.implicit_regularizer(net, given),
    ]
    for measure in measured:
        assert measure(data) == pytest.approx(measure(data[::-1]), rel=1e-4)
    assert same(state_of(net), before)


class Careless(Measurer):
    """A measure of the user's own that moves the weights, and reads what a pass keeps in the network."""

    headline = ("loss", "loss")

    def measure(self, subject, source, context):
        net, found = subject.module, []
        for shift in (0.0, 1.0):
            with torch.no_grad():
                for p in net.parameters():
                    p.data.add_(shift)
            found.append(net(batches(1)[0][0]).sum().item())
            kept = len(getattr(net, "kept", []))
            found.append(measures.performance(net, LOSS, batches()).loss)
        return [Measurement(f"number{k}", "", "", value) for k, value in enumerate([*found, kept])]


@pytest.mark.parametrize("kind", WRITING)
def test_a_measure_of_ones_own_may_move_the_weights(kind):
    net = made(kind)
    before = state_of(net)
    *found, kept = Careless().take(Subject(net), Source(), PlainContext())
    assert same(state_of(net), before)
    for k, shift in enumerate((0.0, 1.0)):
        moved, other = made(kind).eval(), made(kind)
        with torch.no_grad():
            for p in [*moved.parameters(), *other.parameters()]:
                p.add_(shift)
        assert found[2 * k].value == pytest.approx(other.eval()(batches(1)[0][0]).sum().item(), rel=1e-5)
        assert found[2 * k + 1].value == pytest.approx(measures.performance(moved, LOSS, batches()).loss, rel=1e-5)
    assert kept.value == (2 if kind is PlainAttributes else 0)


def test_compiled_networks_are_measured_by_their_own_operations():
    """Compiled within the network, in place, or around it: curvature and sites as of the network itself."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    data = batches()
    expected = measures.hessian_trace(net, LOSS, data, method="exact").total.value
    features = measures.features(net, data)["1"]
    calls = []

    def backend(graph, inputs):  # counts calls of compiled code
        def run(*arguments):
            calls.append(1)
            return graph.forward(*arguments)

        return run

    compiled = torch.compile(net, backend=backend)
    compiled(data[0][0])
    assert calls.pop()
    for wrapped in (compiled, nn.Sequential(compiled)):
        assert measures.hessian_trace(wrapped, LOSS, data, method="exact").total.value == pytest.approx(expected)
        assert torch.equal(next(iter(measures.features(wrapped, data).values())), features)
    net.compile(backend=backend)
    assert torch.equal(measures.features(net, data)["1"], features)
    assert calls == []
    net(data[0][0])
    assert calls


def test_the_memory_of_a_network_is_left_alone():
    net = nn.Linear(3, 2)
    with left_alone(net):
        net.weight.data = torch.zeros(2, 3)
        net.extra = 1
    assert net.weight.abs().sum() > 0
    assert not hasattr(net, "extra")


def test_training_with_a_lightning_loader_is_not_moved(tmp_path):
    """With and without a callback, every bit of a network that writes in eval mode is the same after training."""
    from lnsgd.callbacks import Performance
    from tests.callbacks.foreign_project import Project, trainer_in

    ends = []
    for callbacks in ([], [Performance(every_n_steps=2, splits=["train"])]):
        torch.manual_seed(0)
        module = Project(PlainAttributes())
        (x, y), *_ = batches()
        trainer_in(tmp_path, callbacks, max_epochs=2).fit(module, DataLoader(TensorDataset(x, y), 4))
        ends.append(state_of(module.net))
    assert all(torch.equal(value, ends[1][name][1]) for name, (_, value) in ends[0].items())
