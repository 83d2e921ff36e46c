"""How much memory a run holds, looked at while it goes on."""

import ctypes
import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pytorch_lightning import Callback, LightningModule, Trainer

from lnsgd.callbacks.measurements import write_table
from lnsgd.loggers import CSVLogger


class Sample(NamedTuple):
    """What is held after a step.

    Attributes:
        step: Optimizer steps taken.
        resident: Bytes of the process that are in memory.
        blocks: Blocks of memory that Python's objects take.
    """

    step: int
    resident: int
    blocks: int


def take_sample(step: int) -> Sample:
    """Looks, once everything has been given back that is not in use: by Python, by Arrow and by the C library."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(step, 4096 * pages, sys.getallocatedblocks())


class Samples(Callback):
    """Looks after the first call that reaches each of some steps; what waits to be written is written before."""

    def __init__(self, steps: Iterable[int]) -> None:
        self.due, self.taken = sorted(steps), []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not self.due or trainer.global_step < self.due[0]:
            return
        self.due = [step for step in self.due if step > trainer.global_step]
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.flush()
        write_table(trainer)
        self.taken.append(take_sample(trainer.global_step))


class OneObjectAStep(Callback):
    """A leak."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.kept.extend(object() for _ in range(trainer.global_step - len(self.kept)))


def resident_growth(samples: list[Sample]) -> float:
    """Part by which what is in memory has grown from the first half of the samples to the second.

    Medians, because a look may fall together with something that is soon given back.
    """
    half = len(samples) // 2
    first, second = (sorted(s.resident for s in part)[len(part) // 2] for part in (samples[:half], samples[half:]))
    return second / first - 1


def blocks_a_step(samples: list[Sample]) -> float:
    """Python's blocks that every step leaves behind, from the first sample to the last."""
    return (samples[-1].blocks - samples[0].blocks) / (samples[-1].step - samples[0].step)
