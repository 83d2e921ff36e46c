"""Performance logs loss and error of the present network at any step."""

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch

from lnsgd.callbacks import Performance
from lnsgd.data import InMemory
from lnsgd.label_noise import GaussianNoise, UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.losses import HingeLoss, LogisticLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier, Regressor
from tests.tolerances import EXACT

APPROX = {"rel": 1e-6, "abs": EXACT["atol"]}
STEPS = [0, 3, 6, 8]


class ByHand(pl.Callback):
    """A callback that computes loss and error on whole splits at every step."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self.found: dict[tuple[int, str, str], float] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.on_train_batch_end(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        for split in ("train", "val", "test"):
            data = trainer.datamodule.splits[split]
            with torch.no_grad():
                outputs = module(data.inputs)
            self.found[trainer.global_step, "loss", split] = self.loss(outputs, data.labels).mean().item()
            if not data.labels.is_floating_point():
                wrong = outputs.argmax(1) != data.labels
                self.found[trainer.global_step, "error", split] = wrong.double().mean().item()


def run(folder: Path, module: pl.LightningModule, real: bool, callback: Performance, by_hand: ByHand) -> None:
    torch.manual_seed(0)
    sets = [(torch.randn(n, 4), torch.randn(n, 3) if real else torch.randint(3, (n,))) for n in (16, 11, 7)]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=CSVLogger(str(folder)),
        default_root_dir=folder,
        callbacks=[by_hand, callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=InMemory(*sets, batch_size=4, eval_batch_size=5))


def rows(folder: Path) -> dict[tuple[int, str, str], float]:
    table = pq.read_table(folder / "measures.parquet").to_pylist()
    assert {(row["replica"], row["layer"]) for row in table} == {(0, "")}
    return {(row["step"], row["measure"], row["split"]): row["value"] for row in table}


def assert_logged(folder: Path, found: dict[tuple[int, str, str], float]) -> None:
    with (folder / "metrics.csv").open(newline="") as file:
        metrics = {int(row["step"]): row for row in csv.DictReader(file)}
    for (step, measure, split), value in found.items():
        assert float(metrics[step][f"{measure}/{split}"]) == value


# Splits, the loss of the callback, the module's loss.
CASES = {
    "default": ({}, LogisticLoss(), ("train", "val")),
    "all-splits": ({"splits": ["train", "val", "test"]}, LogisticLoss(), ("train", "val", "test")),
    "another-loss": ({"loss": HingeLoss()}, HingeLoss(), ("train", "val")),
}


@pytest.mark.parametrize(("options", "loss", "splits"), CASES.values(), ids=CASES)
def test_loss_and_error_are_of_clean_labels(tmp_path: Path, options: dict[str, Any], loss: Any, splits: Any) -> None:
    by_hand = ByHand(loss)
    module = Classifier(MLP([4, 5, 3]), LogisticLoss(), UniformNoise(0.5))
    run(tmp_path, module, False, Performance(every_n_steps=3, **options), by_hand)
    found = rows(tmp_path)
    expected = [(step, measure, split) for step in STEPS for measure in ("loss", "error") for split in splits]
    assert found == pytest.approx({key: by_hand.found[key] for key in expected}, **APPROX)
    assert_logged(tmp_path, found)


def test_real_targets_have_no_error(tmp_path: Path) -> None:
    module = Regressor(MLP([4, 5, 3]), label_noise=GaussianNoise(0.5))
    by_hand = ByHand(module.loss)
    run(tmp_path, module, True, Performance(every_n_steps=3), by_hand)
    found = rows(tmp_path)
    expected = [(step, "loss", split) for step in STEPS for split in ("train", "val")]
    assert found == pytest.approx({key: by_hand.found[key] for key in expected}, **APPROX)
    assert_logged(tmp_path, found)


def test_subset_is_fixed(tmp_path: Path) -> None:
    """The error is a fraction of the examples in the subset."""
    module = Classifier(MLP([4, 5, 3]), LogisticLoss())
    run(tmp_path, module, False, Performance(every_n_steps=1, examples=3), ByHand(module.loss))
    errors = [value for (_, measure, _), value in rows(tmp_path).items() if measure == "error"]
    assert len(errors) == 2 * 9
    assert all(round(3 * error) == pytest.approx(3 * error) for error in errors)


def test_two_callbacks_in_one_trainer_keep_separate_states() -> None:
    keys = {Performance(**options).state_key for options in ({}, {"examples": 5}, {"splits": ["test"]})}
    assert len(keys) == 3
