"""Callbacks that never return, and show it by a file ``hangs``."""

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from lnsgd.callbacks.base import MeasureCallback
from lnsgd.measuring import Measurement


def hang() -> None:
    Path("hangs").touch()
    while True:
        time.sleep(0.05)


class Hang(Callback):
    """Hangs in a hook, after a step if one is given."""

    def __init__(self, step: int | None = None, hook: str = "on_train_batch_end") -> None:
        self.step = step
        setattr(self, hook, self._hang)

    def _hang(self, trainer: Trainer, *_: Any) -> None:
        if self.step in (None, trainer.global_step):
            hang()


class Endless(MeasureCallback):
    """A measure that never returns."""

    headline = ("endless", "endless")

    def measure(self, *_: Any) -> list[Measurement]:
        hang()
        return []
