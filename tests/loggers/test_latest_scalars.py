"""Stopping rules, checkpoints and the progress bar get the number that was measured last."""

import importlib

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch

from lnsgd.callbacks import DistanceFromInit
from lnsgd.data import MNIST
from lnsgd.models import MLP
from lnsgd.modules import Classifier


class Seen(pl.Callback):
    """Notes what a callback that monitors the distance sees after each epoch and at the end."""

    def __init__(self):
        self.after_epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.after_epochs.append(float(trainer.callback_metrics["distance_from_init"]))


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("max_steps", [4, 8, 6])  # one epoch, of which the last step is measured; two; one and a half
def test_latest_number_is_shown_after_an_epoch_that_was_measured_by_steps(tmp_path, package, max_steps):
    lightning = importlib.import_module(package)
    torch.manual_seed(0)
    seen = Seen()
    trainer = lightning.Trainer(
        max_steps=max_steps, accelerator="cpu", callbacks=[DistanceFromInit(every_n_steps=2, per_tensor=False), seen],
        default_root_dir=tmp_path, logger=lightning.loggers.CSVLogger(tmp_path), enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(Classifier(MLP([784, 5, 10])), datamodule=MNIST(source="sample", subset=200, batch_size=50))
    rows = pq.read_table(trainer.log_dir + "/measures.parquet").to_pylist()
    measured = {row["step"]: row["value"] for row in rows}
    assert sorted(measured) == list(range(0, max_steps + 1, 2))
    assert seen.after_epochs == pytest.approx(
        [measured[min(4 * n, max_steps)] for n in range(1, len(seen.after_epochs) + 1)]
    )
    assert float(trainer.callback_metrics["distance_from_init"]) == pytest.approx(measured[max_steps])
    assert trainer.progress_bar_metrics["distance"] == pytest.approx(measured[max_steps])
