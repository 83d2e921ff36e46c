"""Callbacks that look at activations share forward passes, and ride along on validation."""

from collections import Counter

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import RunningStage
from torch import nn

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DeadNeurons
from lnsgd.data import MNIST
from lnsgd.models import MLP
from lnsgd.modules import Classifier

TRAIN, VAL, BATCH = 200, 300, 100


class Counted(Classifier):
    """Counts examples in forward passes, by what the Trainer is doing."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.examples = Counter()

    def forward(self, inputs):
        self.examples[self.trainer.state.stage] += len(inputs)
        return super().forward(inputs)


class Twice(Counted):
    """Validation that looks at every image and at its mirror image."""

    def validation_step(self, batch, batch_idx):
        self(batch[0].flip(-1))
        super().validation_step(batch, batch_idx)


def data(eval_batch_size=BATCH):
    return MNIST(source="sample", subset=TRAIN, batch_size=BATCH, val_size=VAL, eval_batch_size=eval_batch_size)


def train(folder, callbacks, kind=Counted, eval_batch_size=BATCH, **options):
    """The module, and the measured numbers at the last step by (measure, split)."""
    torch.manual_seed(0)
    module = kind(MLP([784, 12, 10]))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=callbacks,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, datamodule=data(eval_batch_size))
    rows = pq.read_table(folder / "measures.parquet").to_pylist()
    return module, {(r["measure"], r["split"]): r["value"] for r in rows if r["step"] == trainer.global_step}


def own_passes(module):
    """Examples that went through the network besides training and validation."""
    return module.examples[RunningStage.TRAINING]


def both(**options):
    return [ActiveNeurons(**options), ClassAssociation(**options, threshold=1.1, histograms=0), DeadNeurons(**options)]


TRAINED = 2 * TRAIN
ENDED = TRAIN  # the firings that are kept at the end


def test_three_callbacks_share_one_pass_over_train_and_ride_on_validation(tmp_path):
    module, _ = train(tmp_path, both())
    initial = TRAIN + VAL
    assert own_passes(module) == TRAINED + initial + 2 * TRAIN + ENDED
    assert module.examples[RunningStage.VALIDATING] == 2 * VAL


def test_callbacks_with_other_subsets_look_on_their_own(tmp_path):
    module, _ = train(tmp_path, [ActiveNeurons(splits=["train"], examples=30), DeadNeurons(splits=["train"])])
    assert own_passes(module) == TRAINED + 3 * (30 + TRAIN)


def alone(folder, callback):
    """What one callback measures that never rides: validation is only every tenth epoch."""
    return train(folder, [callback], check_val_every_n_epoch=10)[1]


def test_what_is_seen_on_a_ride_is_what_a_pass_of_its_own_finds(tmp_path):
    _, together = train(tmp_path / "together", both())
    apart = {}
    for number, callback in enumerate(both()):
        apart |= alone(tmp_path / str(number), callback)
    assert together == apart
    assert 0 < together["active_count", "val"] < 12
    assert together["associated_count", "val"] > 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"eval_batch_size": 77}, id="uneven-batches"),
        pytest.param({"limit_val_batches": 1}, id="part-of-validation"),
        pytest.param({"kind": Twice}, id="two-passes-a-batch"),
        pytest.param({"check_val_every_n_epoch": 2}, id="not-every-epoch"),
        pytest.param({"val_check_interval": 0.5}, id="twice-an-epoch"),
    ],
)
def test_validation_of_another_kind_changes_no_number(tmp_path, options):
    _, expected = train(tmp_path / "usual", both())
    assert train(tmp_path / "other", both(), **options)[1] == expected


def test_no_ride_on_the_sanity_check(tmp_path):
    torch.manual_seed(0)
    module = Counted(MLP([784, 12, 10]))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[ActiveNeurons(splits=["val"])],
        logger=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=-1,
    )
    trainer.fit(module, datamodule=data())
    assert own_passes(module) == TRAIN + VAL  # training, and the initial network


def test_a_ride_leaves_no_hook_behind_where_validation_fails(tmp_path):
    class Failing(Counted):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            raise RuntimeError("validation failed")

    torch.manual_seed(0)
    module = Failing(MLP([784, 12, 10]))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[ActiveNeurons()],
        logger=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with pytest.raises(RuntimeError, match="validation failed"):
        trainer.fit(module, datamodule=data())
    assert not any(site._forward_pre_hooks for site in module.modules())


def test_the_network_is_seen_at_the_precision_of_validation(tmp_path):
    """A pass of its own and a ride give the same numbers under autocast too."""
    _, riding = train(tmp_path / "riding", both(), precision="bf16-mixed")
    apart = {}
    for number, callback in enumerate(both()):
        folder = tmp_path / str(number)
        apart |= train(folder, [callback], check_val_every_n_epoch=10, precision="bf16-mixed")[1]
    assert riding == apart
