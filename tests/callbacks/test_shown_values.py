"""The progress bar and `trainer.callback_metrics` always have the number that was measured last."""

import importlib

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lnsgd.callbacks import DistanceFromInit
from lnsgd.callbacks.base import MeasureCallback
from lnsgd.measuring import Measurement

BATCHES = 8


class Steps(MeasureCallback):
    """Measures the number of steps taken."""

    headline = ("steps", "shown")

    def measure(self, subject, source, context):
        return [Measurement("steps", "", "", float(context.trainer.global_step))]


class OtherHeadline(Steps):
    headline = ("stpes", "shown")


class NoData(Steps):
    def measure(self, subject, source, context):
        return [Measurement("steps", "", "", next(iter([])))]


def fit(folder, package, callbacks, **options):
    pl = importlib.import_module(package)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    class Seen(pl.Callback):
        def __init__(self):
            self.values = []

        def note(self, trainer, *_):
            shown = trainer.callback_metrics["steps"].item(), trainer.progress_bar_metrics["shown"]
            self.values.append((trainer.global_step, *shown))

        on_train_start = on_train_batch_end = on_train_epoch_end = on_train_epoch_start = note

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    seen = Seen()
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[*callbacks, seen],
        **{"max_epochs": 2, **quiet, **options},
    )
    trainer.fit(Module(), DataLoader(TensorDataset(torch.randn(16, 3), torch.randint(2, (16,))), 2))
    return trainer, seen.values


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("schedule", [{"every_n_steps": 3}, {"every_n_epochs": 1}, {"at_steps": [5, 8, 11]}], ids=str)
def test_the_number_measured_last_is_shown_at_any_moment(tmp_path, package, schedule):
    (kind, due), *_ = schedule.items()
    if kind == "at_steps":
        measured = {0, *due, 2 * BATCHES}
    else:
        measured = {0, *range(0, 2 * BATCHES, due * (BATCHES if kind == "every_n_epochs" else 1)), 2 * BATCHES}
    _, values = fit(tmp_path, package, [Steps(**schedule)])
    assert len(values) > 2 * BATCHES
    for index, (step, *shown) in enumerate(values):
        last = max(m for m in measured if m <= step)
        before = max((m for m in measured if m < step), default=0)
        at_end_of_epoch = step % BATCHES == 0 and step > 0
        # A schedule in epochs, and the last measurement, come at the end of the epoch, after that of the last batch.
        allowed = {last, before} if at_end_of_epoch and step not in schedule.get("at_steps", ()) else {last}
        assert set(shown) <= allowed, (index, step, shown)
        assert shown[0] == shown[1]


def test_the_final_number_of_a_run_that_ends_within_an_epoch_is_left(tmp_path):
    trainer, _ = fit(tmp_path, "pytorch_lightning", [Steps(every_n_steps=4), DistanceFromInit()], max_steps=11)
    assert trainer.callback_metrics["steps"] == 11
    assert trainer.progress_bar_metrics["shown"] == 11


def test_a_headline_that_is_not_measured_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"OtherHeadline: headline = .* 'stpes', and those taken are steps; name one"):
        fit(tmp_path, "pytorch_lightning", [OtherHeadline()])


def test_a_measure_whose_iterator_ends_does_not_end_the_epoch(tmp_path):
    """Lightning takes a StopIteration for the end of the epoch."""
    with pytest.raises(ValueError, match="NoData raises StopIteration while it measures, as next"):
        fit(tmp_path, "pytorch_lightning", [NoData(every_n_steps=3)])
