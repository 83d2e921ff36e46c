"""Two networks with other inputs than a tensor, or other outputs, are compared like those that compute the same."""

import pandas as pd
import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader

from lnsgd.analysis import ComparisonSettings, compare
from lnsgd.measuring import ActiveNeuronsMeasurer, HessianTraceMeasurer, PerformanceMeasurer, Source

LOSS = nn.CrossEntropyLoss(reduction="none")


class Plain(nn.Module):
    """A network of two inputs in one tensor."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def logits(self, tokens):
        return self.head(self.body(tokens))

    def forward(self, both):
        return self.logits(both)


class Named(Plain):
    """A wrapper of a network that takes its inputs by name and returns a dictionary, as models of transformers do."""

    def forward(self, left, right):
        return {"hidden": torch.cat([left, right], 1), "logits": self.logits(torch.cat([left, right], 1))}


class Pair(Plain):
    """A wrapper of a network that takes a tuple and returns its logits last."""

    def forward(self, left, right):
        return torch.zeros(len(left), 3), self.logits(torch.cat([left, right], 1))


class Data(LightningDataModule):
    """Batches of a given layout."""

    num_classes = 3

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        generator = torch.Generator().manual_seed(0)
        inputs, labels = torch.randn(40, 4, generator=generator), torch.arange(40) % 3
        self.examples = [layout(x, y) for x, y in zip(inputs, labels)]

    def train_dataloader(self):
        return DataLoader(self.examples[:24], batch_size=8)

    def val_dataloader(self):
        return DataLoader(self.examples[24:], batch_size=8)


CASES = {
    "dict-and-logits": (Named, lambda x, y: {"left": x[:2], "right": x[2:], "labels": y}, Source()),
    "outputs-of-a-dict": (
        Named,
        lambda x, y: {"left": x[:2], "right": x[2:], "labels": y},
        Source(outputs=lambda network, inputs: network(**inputs)["logits"]),
    ),
    "tuple-and-outputs": (
        Pair,
        lambda x, y: {"a": x[:2], "b": x[2:], "y": y},
        Source(
            batch=lambda batch: ((batch["a"], batch["b"]), batch["y"]),
            outputs=lambda network, inputs: network(*inputs)[1],
        ),
    ),
}


def compared(folder, model, layout, source, measures):
    settings = ComparisonSettings(points=3, rounds=2, features="net.head", source=source)
    files = folder / "a.pt", folder / "b.pt"
    return compare(*files, data=Data(layout), model=model(), loss=LOSS, measures=measures, how=settings)


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("a.pt", "b.pt")):
        torch.manual_seed(seed)
        torch.save(Plain().state_dict(), tmp_path / name)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*(returns a dict|errs on)")
@pytest.mark.parametrize("case", CASES)
def test_networks_are_compared_whatever_they_take_and_return(case, folder):
    model, layout, source = CASES[case]
    expected = compared(folder, Plain, lambda x, y: (x, y), Source(), [])
    found = compared(folder, model, layout, source, [])
    assert {"ever_active_jaccard", "cka", "loss_barrier"} <= set(expected.similarity.measure)
    pd.testing.assert_frame_equal(found.similarity, expected.similarity)
    pd.testing.assert_frame_equal(found.path, expected.path)


@pytest.mark.filterwarnings("ignore:.*(returns a dict|errs on)")
def test_single_measures_take_dictionaries_too(folder):
    measures = [PerformanceMeasurer(), ActiveNeuronsMeasurer(), HessianTraceMeasurer()]
    model, layout, source = CASES["dict-and-logits"]
    expected = compared(folder, Plain, lambda x, y: (x, y), Source(), measures).differences
    assert {"loss", "active_count", "hessian_trace"} <= set(expected.measure)
    pd.testing.assert_frame_equal(compared(folder, model, layout, source, measures).differences, expected, rtol=1e-5)


def test_what_was_computed_with_other_outputs_is_not_reused(folder):
    layout = CASES["tuple-and-outputs"][1]
    batch = CASES["tuple-and-outputs"][2].batch
    found = []
    for outputs in (lambda network, inputs: network(*inputs)[1], _scaled):
        settings = ComparisonSettings(points=2, source=Source(batch=batch, outputs=outputs))
        given = {"data": Data(layout), "model": Pair(), "loss": LOSS, "measures": [], "out": folder / "out"}
        found.append(compare(folder / "a.pt", folder / "b.pt", how=settings, **given).path)
    assert not found[0].loss.equals(found[1].loss)


def _scaled(network, inputs):
    return 2 * network(*inputs)[1]
