"""A loss that is not finite: the guard finds its cause in batches of any layout, and names the key."""

import math
from dataclasses import dataclass

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lnsgd.callbacks import FiniteGuard
from lnsgd.measures.nonfinite import first_nonfinite
from lnsgd.runs.errors import DivergedError


@dataclass
class Scene:
    image: torch.Tensor
    mask: torch.Tensor


class Divides(nn.Module):
    def forward(self, x):
        return x / 0


class Module(LightningModule):
    """A module that sums up whatever its batches hold, and divides by zero if asked for."""

    def __init__(self, divides=False, called_with=("image", "mask")):
        super().__init__()
        self.layer, self.last = nn.Linear(3, 3), Divides() if divides else nn.Identity()
        self.called_with = called_with

    def forward(self, image, mask=None):
        return self.last(self.layer(image if mask is None else image * mask))

    def training_step(self, batch, batch_idx):
        found, waiting = 0.0, [batch]
        while waiting:
            value = waiting.pop()
            if isinstance(value, torch.Tensor):
                found = found + self(value).sum() if value.shape[1:] == (3,) else found + value.sum()
            else:
                value = vars(value) if isinstance(value, Scene) else value
                waiting += value.values() if isinstance(value, dict) else value
        return found

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Embedded(Module):
    """A module that keeps its network elsewhere, so that it has no forward pass of its own."""

    forward = nn.Module.forward

    def training_step(self, batch, batch_idx):
        return self.last(self.layer(batch["image"])).sum()


def bad():
    return torch.tensor([[1.0, math.nan, 1.0], [math.inf, 1.0, 1.0]])


def good():
    return torch.ones(2, 3)


def cause(batch, module=None, **options):
    """Return what the guard says about the cause in a run on one batch."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=[FiniteGuard(**options)], **quiet)
    with pytest.raises(DivergedError) as found:
        trainer.fit(module or Module(), DataLoader([0], batch_size=1, collate_fn=lambda _: batch()))
    return str(found.value).partition("(epoch 0, batch 0): ")[2].partition("; the run has ended")[0]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (lambda: {"image": good(), "mask": bad(), "labels": torch.ones(2)}, "'mask' of the batch has"),
        (lambda: {"inputs": {"image": [good(), bad()]}, "labels": torch.ones(2)}, "'inputs.image.1' of the batch has"),
        (lambda: ((good(), {"mask": bad()}), torch.ones(2)), "'0.1.mask' of the batch has"),
        (lambda: {"first": [good(), torch.ones(2)], "second": [bad(), torch.ones(2)]}, "'second.0' of the batch has"),
        (lambda: Scene(good(), bad()), "'mask' of the batch has"),
        (lambda: [bad(), torch.ones(2)], "the inputs of the batch have"),
        (lambda: [good(), bad()], "the labels of the batch have"),
        (bad, "the inputs of the batch have"),
    ],
    ids=["dict", "nested-dict", "tuple-of-tuple", "two-loaders", "dataclass", "inputs", "labels", "tensor"],
)
def test_what_is_not_finite_in_a_batch_is_named_by_its_key(batch, named):
    assert cause(batch) == f"{named} 2 entries that are not finite"


@pytest.mark.parametrize(
    "batch",
    [
        lambda: {"image": good(), "mask": good(), "labels": torch.ones(2)},
        lambda: {"image": good(), "label": torch.ones(2)},
        lambda: ({"image": good(), "mask": good()}, torch.ones(2)),
        lambda: ((good(), good()), torch.ones(2)),
        good,
    ],
    ids=["dict", "dict-of-one", "tuple-of-dict", "tuple-of-tuple", "tensor"],
)
def test_the_layer_is_named_for_batches_of_any_layout(batch):
    assert cause(batch, Module(divides=True)) == "last (Divides) gives numbers that are not finite"


@pytest.mark.parametrize(
    ("module", "batch", "reason"),
    [
        (
            Module(divides=True),
            lambda: {"image": good(), "target": torch.ones(2)},
            "a batch is a dict with 'image', 'tar",
        ),
        (
            Module(divides=True),
            lambda: {"picture": good(), "x": good(), "labels": good()},
            "takes (image, mask=None), but",
        ),
        (Embedded(divides=True), lambda: {"image": good(), "labels": torch.ones(2)}, "NotImplementedError: "),
    ],
    ids=["unknown-layout", "other-names", "no-forward"],
)
def test_a_pass_that_fails_is_said_and_does_not_hide_the_loss(module, batch, reason):
    said = cause(batch, module)
    assert said.startswith("weights and batch are finite, but a second forward pass that looks for the layer fails (")
    assert reason in said


def test_buffers_are_put_back_if_the_search_fails():
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("x")

    net = nn.Sequential(nn.BatchNorm1d(3), Fails())
    with pytest.raises(ValueError, match="does not take inputs"):
        first_nonfinite(net, torch.randn(4, 3))
    assert net[0].num_batches_tracked == 0
