"""Callbacks on activation sites share forward passes, and use Lightning's validation pass."""

from collections import Counter

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import RunningStage

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DeadNeurons
from lnsgd.data import MNIST
from lnsgd.models import MLP
from lnsgd.modules import Classifier

TRAIN, VAL, BATCH = 200, 300, 100


# Examples in forward passes by stage of the Trainer. A measure puts back what a forward pass writes into a module.
EXAMPLES: Counter[RunningStage] = Counter()


class Counted(Classifier):
    """A module whose examples in forward passes are counted."""

    def forward(self, inputs):
        EXAMPLES[self.trainer.state.stage] += len(inputs)
        return super().forward(inputs)


class Twice(Counted):
    """A module that validates on every image and on its mirror image."""

    def validation_step(self, batch, batch_idx):
        self(batch[0].flip(-1))
        super().validation_step(batch, batch_idx)


def data(eval_batch_size=BATCH):
    return MNIST(source="sample", subset=TRAIN, batch_size=BATCH, val_size=VAL, eval_batch_size=eval_batch_size)


def train(folder, callbacks, kind=Counted, eval_batch_size=BATCH, **options):
    """Train; return the module, and the numbers of the last step by (measure, split)."""
    torch.manual_seed(0)
    module = kind(MLP([784, 12, 10]))
    EXAMPLES.clear()
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


def own_passes():
    """Return the number of examples in forward passes during training."""
    return EXAMPLES[RunningStage.TRAINING]


def both(**options):
    return [ActiveNeurons(**options), ClassAssociation(**options, threshold=1.1, histograms=0), DeadNeurons(**options)]


TRAINED = 2 * TRAIN
FEW = 2  # examples of a pass before each other, which shows which axis is that of the examples
CHECKED = 4 + 2  # examples of the two passes before the first measurement of a split, which check the network
ENDED = TRAIN + FEW  # the firings that are kept at the end


def test_three_callbacks_share_one_pass_and_the_validation_pass(tmp_path):
    train(tmp_path, both())
    initial = CHECKED + TRAIN + FEW + CHECKED + VAL + FEW
    assert own_passes() == TRAINED + initial + 2 * (TRAIN + FEW) + ENDED
    assert EXAMPLES[RunningStage.VALIDATING] == 2 * (VAL + FEW)


def test_callbacks_with_other_subsets_make_their_own_passes(tmp_path):
    train(tmp_path, [ActiveNeurons(splits=["train"], examples=30), DeadNeurons(splits=["train"])])
    assert own_passes() == TRAINED + CHECKED + 3 * (30 + FEW + TRAIN + FEW)


def alone(folder, callback):
    """Return what one callback measures without the validation pass, which comes every tenth epoch only."""
    return train(folder, [callback], check_val_every_n_epoch=10)[1]


def test_validation_pass_gives_the_numbers_of_an_own_pass(tmp_path):
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
def test_other_kinds_of_validation_change_no_number(tmp_path, options):
    _, expected = train(tmp_path / "usual", both())
    assert train(tmp_path / "other", both(), **options)[1] == expected


def test_sanity_check_is_not_counted(tmp_path):
    torch.manual_seed(0)
    module = Counted(MLP([784, 12, 10]))
    EXAMPLES.clear()
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
    assert own_passes() == TRAIN + CHECKED + VAL + FEW  # training, and the initial network


def test_failed_validation_leaves_no_hook_behind(tmp_path):
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


def test_firings_are_counted_at_the_precision_of_validation(tmp_path):
    """An own pass and the validation pass give the same numbers under autocast too."""
    _, riding = train(tmp_path / "riding", both(), precision="bf16-mixed")
    apart = {}
    for number, callback in enumerate(both()):
        folder = tmp_path / str(number)
        apart |= train(folder, [callback], check_val_every_n_epoch=10, precision="bf16-mixed")[1]
    assert riding == apart
