"""Things that never come to an end, and say so in a file ``hangs``."""

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.callbacks.measurements import Measurement


def hang() -> None:
    Path("hangs").touch()
    while True:
        time.sleep(0.05)


class Hang(Callback):
    """Hangs after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            hang()


class Endless(MeasureCallback):
    """A measure that never has its number."""

    headline = ("endless", "endless")

    def measure(self, *_: Any) -> list[Measurement]:
        hang()
        return []
