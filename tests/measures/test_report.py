"""What long computations tell while they run."""

import logging

import pytest
import torch
from torch import nn

from lnsgd.measures import Report, hessian_trace, report, spectral_density, top_eigenvalues
from lnsgd.measuring import HessianTraceMeasurer, PlainContext, Source, SpectralDensityMeasurer, Subject
from tests.measures.small_problems import mlp, vectors

CE = nn.CrossEntropyLoss(reduction="none")


class Recorded(Report):
    def __init__(self):
        super().__init__("measure")
        self.messages, self.fractions = [], []

    def announce(self, what, message, seconds):
        self.messages.append(message)
        assert message.startswith(what)

    def show(self, fraction):
        self.fractions.append(fraction)


@pytest.fixture
def nothing_is_short(monkeypatch):
    monkeypatch.setattr(report, "LONG", 0.0)
    monkeypatch.setattr(report, "_TRIAL", 0.0)


@pytest.mark.parametrize("max_probes", [1000, 40], ids=["exact", "hutchinson"])
def test_a_dearer_method_is_announced_with_the_reason_and_the_duration(max_probes):
    recorded = Recorded()
    found = hessian_trace(mlp("tanh"), CE, [vectors()], max_probes=max_probes, report=recorded)
    (message,) = recorded.messages
    assert message.startswith(f"measure: method = '{found.method}' is taken and not 'ggn', because the network")
    assert "activations.0 (Tanh) is not, by its operation Tanh; this " in message
    assert message.endswith(" s")


def test_the_cheap_method_says_nothing_unless_it_takes_long(nothing_is_short):
    recorded = Recorded()
    hessian_trace(mlp(), CE, [vectors()], rtol=1e-9, report=recorded)
    (message,) = recorded.messages
    assert message.startswith("measure: this takes at most ")
    assert recorded.fractions[-1] == 1


def test_a_loss_that_couples_many_outputs_is_named():
    recorded = Recorded()
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 200)).double()
    found = hessian_trace(
        net, lambda o, labels: o.sin().cumsum(1).sin().sum(1), [vectors()], max_probes=16, report=recorded
    )
    assert found.method == "hutchinson"
    assert "because the loss couples the 200 outputs of an example" in recorded.messages[0]


@pytest.mark.parametrize(
    "measure",
    [
        lambda **options: hessian_trace(mlp("tanh"), CE, [vectors()], method="hutchinson", **options),
        lambda **options: hessian_trace(mlp("tanh"), CE, [vectors()], method="exact", **options),
        lambda **options: hessian_trace(mlp("tanh"), CE, [vectors()], method="hutch++", **options),
        lambda **options: top_eigenvalues(mlp("tanh"), CE, [vectors()] * 3, **options),
        lambda **options: spectral_density(mlp("tanh"), CE, [vectors()] * 3, probes=2, steps=5, **options),
    ],
    ids=["hutchinson", "exact", "hutch++", "eigenvalues", "density"],
)
def test_products_are_counted(measure):
    recorded, unknown = Recorded(), measure()
    assert torch.equal(*(next(iter(tensors_of(found))) for found in (measure(report=recorded), unknown)))
    fractions = recorded.fractions
    assert len(fractions) >= 10
    assert 0 < fractions[0] < 0.5
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1


def tensors_of(found):
    for name in ("values", "nodes"):
        if hasattr(found, name):
            yield getattr(found, name)
    yield torch.tensor(getattr(found, "total", found).value if hasattr(found, "total") else 0.0)


def test_the_spectral_density_takes_as_many_products_as_it_says():
    recorded = Recorded()
    spectral_density(mlp("tanh"), CE, [vectors()] * 3, probes=2, steps=5, report=recorded)
    assert recorded.fractions == pytest.approx([k / 30 for k in range(1, 31)])


def test_by_default_long_computations_are_warnings(caplog, nothing_is_short):
    with caplog.at_level(logging.INFO, "lnsgd.measures"):
        top_eigenvalues(mlp(), CE, [vectors()])
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("lnsgd.measures", "WARNING")
    assert record.message.startswith("top_eigenvalues: this ")


class Context(PlainContext):
    def __init__(self):
        super().__init__({"val": [vectors()]}, precision="64-true")
        self.messages, self.fractions = [], []
        self.on_progress = self.fractions.append

    def log_message(self, message):
        self.messages.append(message)


def test_a_measurer_announces_its_method_once_in_a_context():
    context = Context()
    for _ in range(2):
        HessianTraceMeasurer("val", loss=CE).take(Subject(mlp("tanh")), Source({"val": loader()}), context)
    (message,) = context.messages
    assert message.startswith("hessian_trace/val: method = 'exact' is taken")


def test_the_parts_of_a_measurement_are_one_progress():
    context = Context()
    SpectralDensityMeasurer("val", loss=CE, probes=4, steps=25, top=2).take(
        Subject(mlp("tanh")), Source({"val": loader()}), context
    )
    assert context.fractions == sorted(context.fractions)
    assert any(0 < fraction < 1 / 3 for fraction in context.fractions)
    assert any(1 / 3 < fraction <= 1 for fraction in context.fractions)


def loader():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*vectors()), 4)
