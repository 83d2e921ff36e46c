"""Before the first measure, a few examples show whether a network can be measured; right networks all can."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lnsgd import models
from lnsgd.measuring import (
    ActiveNeuronsMeasurer,
    GradientNormMeasurer,
    HessianTraceMeasurer,
    ImplicitRegularizerMeasurer,
    LargestOutputMeasurer,
    Measurer,
    PerformanceMeasurer,
    PlainContext,
    Source,
    Subject,
)

LOSS = nn.CrossEntropyLoss(reduction="none")


def loaders(inputs, classes=3):
    torch.manual_seed(0)
    return {"train": DataLoader(TensorDataset(inputs, torch.randint(classes, (len(inputs),))), 8)}


def vectors(examples=9):
    return torch.randn(examples, 6, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """A network on features that a subclass computes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.act, self.head = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)

    def features(self, h):
        return h

    def forward(self, x):
        return self.head(self.features(self.act(self.layer(x))))


class FunctionalDropout(Network):
    def features(self, h):
        return F.dropout(h, 0.5)


class TrainingDropout(Network):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def features(self, h):
        return self.drop.train()(h)


class BatchStatistics(Network):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def features(self, h):
        return self.norm(h)


class TrainingBatchNorm(BatchStatistics):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def features(self, h):
        return self.norm.train()(h)


class MeanOfBatch(Network):
    def features(self, h):
        return h - h.mean(0)


class ExamplesSecond(nn.Module):
    """A recurrent network whose first axis is time, on batches with the examples there."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.act, self.head = nn.LSTM(6, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.act(self.lstm(x)[0]))[:, -1]


RANDOM, MIXED = "other outputs for the same inputs in eval mode", "depend on the other examples of its batch"
WRONG = {
    "functional-dropout": (FunctionalDropout, vectors(), f"{RANDOM}: .* not a module"),
    "training-dropout": (TrainingDropout, vectors(), rf"{RANDOM}: .* drop \(Dropout\)"),
    "no-running-statistics": (BatchStatistics, vectors(), rf"{MIXED}.* norm \(BatchNorm1d\)"),
    "training-batch-norm": (TrainingBatchNorm, vectors(), rf"{MIXED}.* norm \(BatchNorm1d\)"),
    "mean-of-batch": (MeanOfBatch, vectors(), f"{MIXED}.* between act .* and head .* not a module"),
    "examples-second": (ExamplesSecond, torch.randn(9, 5, 6), rf"{MIXED}.* lstm \(LSTM\)"),
}
MEASURERS = [
    ActiveNeuronsMeasurer(["train"]),
    PerformanceMeasurer(["train"], loss=LOSS),
    LargestOutputMeasurer(["train"]),
    GradientNormMeasurer(loss=LOSS),
    HessianTraceMeasurer(loss=LOSS),
    ImplicitRegularizerMeasurer(),
]


@pytest.mark.parametrize(("kind", "inputs", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("measurer", MEASURERS, ids=lambda measurer: type(measurer).__name__)
def test_networks_that_are_not_one_function_of_each_example_are_refused(kind, inputs, message, measurer):
    net, source = kind(), Source(loaders(inputs))
    with pytest.raises(ValueError, match=message) as refusal:
        measurer.take(Subject(net), source, PlainContext())
    assert "\n" not in str(refusal.value)


class OwnStatistics(Network):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def features(self, h):
        self.mean.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
        return h - self.mean


def test_statistics_of_a_networks_own_are_measured_and_said_to_depend_on_batches(caplog):
    """They are looked at, but not differentiated."""
    net, source = OwnStatistics(), Source(loaders(vectors()))
    with caplog.at_level(logging.INFO, "lnsgd.measuring"):
        assert ActiveNeuronsMeasurer(["train"]).take(Subject(net), source, PlainContext())
    assert "OwnStatistics updates mean in eval mode" in caplog.text
    with pytest.raises(ValueError, match=f"{MIXED}.* between act .* and head"):
        GradientNormMeasurer(loss=LOSS).take(Subject(net), source, PlainContext())


def repeated_mean(outputs, labels):
    return LOSS(outputs, labels).mean().expand(len(labels))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        pytest.param(repeated_mean, "the loss of an example is .* alone and .* beside others", id="of-the-batch"),
        pytest.param(nn.CrossEntropyLoss(), "it must be per example", id="mean"),
    ],
)
def test_losses_that_are_not_of_one_example_are_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        PerformanceMeasurer(["train"], loss=loss).take(Subject(Network()), Source(loaders(vectors())), PlainContext())


class Recurrent(ExamplesSecond):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=False)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True)
        self.body, self.act, self.head = nn.TransformerEncoder(layer, 2), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.act(self.body(x).mean(1)))


class ChangesItsInput(Network):
    def forward(self, x):
        return super().forward(x.sub_(0.5).div_(0.25))


class OneOutput(Network):
    def forward(self, x):
        return super().forward(x)[:, 0] if len(x) > 1 else super().forward(x)[0, 0]


class HugeMasked(Network):
    def forward(self, x):
        outputs = super().forward(x)
        return torch.cat([outputs, torch.full_like(outputs, -torch.inf)], 1)


class Images(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 2, 3), nn.InstanceNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(1800, 3))


def layers(norm):
    return nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))


def filled(value):
    net = Network()
    for p in net.parameters():
        p.data.fill_(value)
    return net


IMAGES = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
RIGHT = {
    "mlp": (Network, vectors()),
    "lnsgd-mlp": (lambda: models.MLP([6, 8, 3]), vectors()),
    "resnet20": (models.ResNet20, IMAGES),
    "lstm": (Recurrent, torch.randn(9, 4, 6)),
    "encoder": (Encoder, torch.randn(9, 4, 6)),
    "changes-its-input": (ChangesItsInput, vectors()),
    "masked": (HugeMasked, vectors()),
    "two-examples": (Network, vectors(2)),
    "one-example": (Network, vectors(1)),
    "batch-norm": (lambda: layers(nn.BatchNorm1d(8)), vectors()),
    "group-norm": (lambda: layers(nn.GroupNorm(2, 8)), vectors()),
    "instance-norm": (Images, IMAGES),
    "diverged": (lambda: filled(torch.nan), vectors()),
    "zero": (lambda: filled(0.0), vectors()),
}


@pytest.mark.parametrize(("kind", "inputs"), RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
def test_right_networks_are_measured_in_every_precision(kind, inputs, precision):
    context = PlainContext(loaders(inputs), precision=precision)
    net = context.precision.convert_module(kind())
    for measurer in (ActiveNeuronsMeasurer(["train"]), PerformanceMeasurer(["train"], loss=LOSS)):
        assert measurer.take(Subject(net), Source(), context)


def foreign_networks():
    timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    yield timm.create_model("convnext_atto", num_classes=3), IMAGES
    yield timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, patch_size=8), IMAGES
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=50, num_labels=3, **small)
    yield transformers.BertForSequenceClassification(config), torch.randint(50, (9, 7))
    config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    yield transformers.GPT2LMHeadModel(config), torch.randint(50, (9, 7))


def test_networks_of_timm_and_transformers_are_measured():
    for net, inputs in foreign_networks():
        assert LargestOutputMeasurer(["train"]).take(Subject(net), Source(loaders(inputs)), PlainContext())


class Counted(Network):
    """A network that reports the number of examples of each forward pass."""

    def __init__(self, calls):
        super().__init__()
        self.report = calls.append

    def forward(self, x):
        self.report(len(x))
        return super().forward(x)


class Nothing(Measurer):
    """A measurer that only asks the guard."""

    headline = ("nothing", "nothing")
    measured_splits = ("train",)

    def measure(self, subject, source, context):
        return []


def test_the_guard_looks_once_and_at_few_examples():
    calls = []
    net, source, context = Counted(calls), Source(loaders(vectors(50))), PlainContext()
    for _ in range(3):
        Nothing().take(Subject(net), source, context)
    assert calls == [4, 2]
    Nothing().take(Subject(Counted(calls)), source, context)
    assert calls == [4, 2, 4, 2]  # another network
