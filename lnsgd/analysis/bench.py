"""A Trainer to measure networks in, without training them."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from pytorch_lightning import Callback, LightningDataModule, Trainer

from lnsgd import rng
from lnsgd.analysis.source import Source
from lnsgd.callbacks.firing_passes import passes_of
from lnsgd.callbacks.measurement_data import forget
from lnsgd.data import ReplicatedData
from lnsgd.data.tensor_data import TensorData

# DataModules that were set up: a second time they might split their data in another way.
_set_up: WeakSet[Any] = WeakSet()


def best_device(accelerator: str) -> str:
    """``cpu`` or ``cuda``, for ``auto`` the latter where there is one.

    Raises:
        ValueError: another one, or no GPU where one is asked for.
    """
    if accelerator not in ("auto", "cpu", "cuda"):
        raise ValueError(f"accelerator = {accelerator}; choose auto, cpu or cuda")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator = cuda: torch sees no GPU here; use cpu or auto")
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def bench(source: Source, callbacks: Sequence[Callback], accelerator: str) -> Iterator[Trainer]:
    """A Trainer of one device with a source's module and data attached and set up, and nothing that writes.

    Args:
        source: What is measured.
        callbacks: That measure it; those that look at the same sites share forward passes.
        accelerator: See `best_device`.

    Raises:
        ValueError: see `best_device`.
        OSError: data is missing.
    """
    with _quiet():
        trainer = Trainer(
            accelerator=best_device(accelerator),
            devices=1,
            precision=source.precision,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    module: Any = source.module
    trainer.strategy.connect(module)
    trainer._data_connector.attach_data(module, datamodule=source.data)
    try:
        if source.data is not None:
            _prepare(source.data)
        trainer.precision_plugin.convert_module(module)
        module.to(trainer.strategy.root_device)
        yield trainer
    finally:
        forget(trainer)
        module.trainer = None
        module.cpu()


def _prepare(data: LightningDataModule) -> None:
    """As a Trainer does, but once; a split that is not there shows where it is measured."""
    if data in _set_up:
        return
    with rng.forked(0, "data"):  # so that a split that is drawn is the same whenever it is analyzed
        data.prepare_data()
        data.setup("fit")
        if not isinstance(data, TensorData | ReplicatedData):  # whose splits are all there
            data.setup("test")
    _set_up.add(data)


def other_weights(trainer: Trainer) -> None:
    """Must be called when the weights were changed without a step: forward passes are shared within one."""
    passes_of(trainer).forget()


def set_batch_size(data: Any, examples: int) -> None:
    """Sets how many examples go through the network at a time.

    Raises:
        ValueError: fewer than one; data that does not say how that is set.
    """
    if examples < 1:
        raise ValueError(f"batch size = {examples}; give at least 1")
    own = data.data if isinstance(data, ReplicatedData) else data
    if isinstance(own, TensorData):
        own.eval_batch_size = examples
    elif hasattr(own, "batch_size"):
        own.batch_size = examples
    else:
        raise ValueError(
            f"batch size = {examples}: {type(own).__name__} has no attribute batch_size; set it by its own arguments"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's words on the accelerators of this machine and on what one should train with."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
