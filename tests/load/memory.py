"""Sample the memory of a run while it trains."""

import ctypes
import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pytorch_lightning import Callback, LightningModule, Trainer

from lnsgd.callbacks.base import MeasuringCallback
from lnsgd.loggers import CSVLogger


class Sample(NamedTuple):
    """The memory in use after a step.

    Attributes:
        step: Optimizer steps taken.
        resident: Resident bytes of the process.
        blocks: Memory blocks of Python's objects.
    """

    step: int
    resident: int
    blocks: int


def take_sample(step: int) -> Sample:
    """Sample the memory after Python, Arrow and the C library have released what is not in use."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(step, 4096 * pages, sys.getallocatedblocks())


class MemorySampling(Callback):
    """Samples the memory after the first call that reaches each of some steps, when all tables are written."""

    def __init__(self, steps: Iterable[int]) -> None:
        self.due, self.taken = sorted(steps), []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not self.due or trainer.global_step < self.due[0]:
            return
        self.due = [step for step in self.due if step > trainer.global_step]
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.flush()
        for callback in trainer.callbacks:
            if isinstance(callback, MeasuringCallback):
                callback.shared(trainer).write_table()
        self.taken.append(take_sample(trainer.global_step))


class LeakingCallback(Callback):
    """Leaks one object per step."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.kept.extend(object() for _ in range(trainer.global_step - len(self.kept)))


def resident_growth(samples: list[Sample]) -> float:
    """Return the relative growth of resident memory from the first half of the samples to the second.

    Medians are compared, because a sample may include memory that is released soon.
    """
    half = len(samples) // 2
    first, second = (sorted(s.resident for s in part)[len(part) // 2] for part in (samples[:half], samples[half:]))
    return second / first - 1


def blocks_per_step(samples: list[Sample]) -> float:
    """Return the growth of Python's memory blocks per step, from the first sample to the last."""
    return (samples[-1].blocks - samples[0].blocks) / (samples[-1].step - samples[0].step)
