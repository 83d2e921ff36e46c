"""Callbacks that inject a fault in the middle of training."""

import subprocess
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer


class CommandAt(Callback):
    """Runs a shell command after a step."""

    def __init__(self, step: int, command: Sequence[str]) -> None:
        self.step = step
        self.command = command

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            subprocess.run(self.command, check=True)


class OutOfMemoryAt(Callback):
    """Raises the error of a full GPU after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which 1.14 "
                "GiB is free. Including non-PyTorch memory, this process has 78.10 GiB memory in use."
            )
