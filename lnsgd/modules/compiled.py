"""The forward pass of training, compiled."""

from collections.abc import Callable
from types import FunctionType
from typing import Literal, get_args

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lnsgd.replicas import check_cxx_compiler

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]

# On CUDA they replay CUDA graphs, which keep their results in memory that the next step writes to.
_WITH_CUDA_GRAPHS: tuple[CompileMode, ...] = ("reduce-overhead", "max-autotune")


def check_mode(mode: CompileMode | None) -> None:
    """Raises ValueError where a mode is none of `CompileMode`."""
    if mode is not None and mode not in get_args(CompileMode):
        raise ValueError(f"compile_mode = {mode!r}; choose one of {', '.join(get_args(CompileMode))}, or null")


def check_compilable(mode: CompileMode, trainer: Trainer) -> None:
    """Raises ValueError where training cannot be compiled on this machine or by this Trainer."""
    if trainer.strategy.root_device.type == "cpu":
        try:
            check_cxx_compiler("leave compile_mode out")
        except ValueError as error:
            raise ValueError(f"compile_mode = {mode}: {error}") from None
    batches = trainer.accumulate_grad_batches
    if mode in _WITH_CUDA_GRAPHS and batches > 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches = {batches} with compile_mode = {mode}: its CUDA graphs overwrite the "
            "gradients of the batch before; use compile_mode = default"
        )


def compiled(forward: Callable[[Tensor], Tensor], mode: CompileMode) -> Callable[[Tensor], Tensor]:
    """A forward pass compiled by `torch.compile`, its backward pass too; for one size of batches at a time.

    Args:
        forward: From inputs to outputs, for training.
        mode: Of `torch.compile`.
    """
    run = torch.compile(_with_own_code(forward), mode=mode, dynamic=False)
    if mode not in _WITH_CUDA_GRAPHS:
        return run

    def step(inputs: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return run(inputs).clone()  # sums over an epoch hold the outputs of many steps

    return step


def _with_own_code(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function; what is compiled of it does not count for others.

    `torch.compile` keeps what it compiles with the code of a function and silently gives up after eight times, that is
    after a few networks in one program, since all have the same ``forward``.
    """

    def call(inputs: Tensor) -> Tensor:
        return forward(inputs)

    return FunctionType(call.__code__.replace(), call.__globals__, closure=call.__closure__)
