"""Runs of many steps with measures, checkpoints and ``metrics.csv``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from lnsgd.data import MNIST, InMemory
from lnsgd.label_noise import UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from tests.callbacks.test_training_unmoved import measuring as all_callbacks
from tests.load.memory import LeakingCallback, MemorySampling, Sample
from tests.replicas.replicated_runs import SEEDS, Case, examples, measuring, trainer_of

SAMPLES = 12
EPOCH_STEPS = 5


def _sampling(warm_up: int, steps: int) -> MemorySampling:
    """Sample the memory at evenly spaced steps after a warm-up."""
    return MemorySampling(warm_up + (steps - warm_up) * k // (SAMPLES - 1) for k in range(SAMPLES))


def _leaks(leak: bool) -> list[Callback]:
    return [LeakingCallback()] if leak else []


def replicated(folder: Path, engine: str, steps: int, leak: bool = False) -> list[Sample]:
    """Train ten epochs of replicas, each measured and saved ten times; the first two are the warm-up."""
    sampling, every = _sampling(steps // 5, steps), steps // 100
    save = ModelCheckpoint(
        folder / "checkpoints", save_last=True, every_n_train_steps=every, enable_version_counter=False
    )
    callbacks = [*measuring(every_n_steps=every), save, *_leaks(leak), sampling]
    data_of = partial(InMemory, examples(steps // 10, 1), examples(11, 2), examples(12, 3), batch_size=1, seed=0)
    module, data = Case(data_of).together(SEEDS, engine, steps_per_call=every)
    trainer_of(folder, callbacks=callbacks, max_steps=steps).fit(module, datamodule=data)
    return sampling.taken


def ordinary(folder: Path, epochs: int, leak: bool = False) -> list[Sample]:
    """Train epochs of five steps with all callbacks; the first quarter is the warm-up."""
    sampling = _sampling(epochs // 4 * EPOCH_STEPS, epochs * EPOCH_STEPS)
    save = ModelCheckpoint(folder / "checkpoints", save_last=True, enable_version_counter=False)
    callbacks: Sequence[Callback] = [*all_callbacks(), save, *_leaks(leak), sampling]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        logger=CSVLogger(str(folder)),
        default_root_dir=folder,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1,
    )
    data = MNIST(source="sample", subset=100, batch_size=100 // EPOCH_STEPS, val_size=100)
    trainer.fit(Classifier(MLP([784, 12, 10]), label_noise=UniformNoise(0.3)), datamodule=data)
    return sampling.taken
