"""The forward pass of training, compiled."""

from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal, get_args

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from lnsgd.compat import check_cxx_compiler

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]

# On CUDA these modes replay CUDA graphs, which keep their results in memory that the next step overwrites.
_WITH_CUDA_GRAPHS: tuple[CompileMode, ...] = ("reduce-overhead", "max-autotune")


class TrainingForward:
    """Computes the outputs of a module in training, by a forward pass that is compiled at the first call if asked for.

    Copies compile it again.

    Args:
        mode: Mode of `torch.compile`; ``None`` to call the module itself.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(self, mode: CompileMode | None) -> None:
        if mode is not None and mode not in get_args(CompileMode):
            raise ValueError(f"compile_mode = {mode!r}; choose one of {', '.join(get_args(CompileMode))}, or null")
        self.mode: CompileMode | None = mode
        self._compiled: Callable[[Tensor], Tensor] | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether the function has been compiled."""
        return self._compiled is not None

    def __call__(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Compute ``module(inputs)``, with the hooks of the module unless it is compiled; always the same module."""
        if self.mode is None:
            return module(inputs)
        if self._compiled is None:
            self._compiled = compile_forward(module.forward, self.mode)
        return self._compiled(inputs)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the compiled function."""
        return {**self.__dict__, "_compiled": None}

    def check(self, trainer: Trainer) -> None:
        """Raise ValueError if training cannot be compiled on this machine or by this Trainer."""
        if self.mode is None:
            return
        if trainer.strategy.root_device.type == "cpu":
            try:
                check_cxx_compiler("leave compile_mode out")
            except ValueError as error:
                raise ValueError(f"compile_mode = {self.mode}: {error}") from None
        batches = trainer.accumulate_grad_batches
        if self.mode in _WITH_CUDA_GRAPHS and batches > 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches = {batches} with compile_mode = {self.mode}: its CUDA graphs "
                "overwrite the gradients of the batch before; use compile_mode = default"
            )


def compile_forward(forward: Callable[[Tensor], Tensor], mode: CompileMode) -> Callable[[Tensor], Tensor]:
    """Compile a forward pass by `torch.compile`, and its backward pass too, for one size of batches at a time.

    Args:
        forward: Function from inputs to outputs, for training.
        mode: Mode of `torch.compile`.
    """
    run = torch.compile(_with_own_code(forward), mode=mode, dynamic=False)
    if mode not in _WITH_CUDA_GRAPHS:
        return run

    def step(inputs: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return run(inputs).clone()  # sums over an epoch hold the outputs of many steps

    return step


def _with_own_code(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the same function with a code object of its own.

    `torch.compile` keeps what it compiles with the code object of a function, and silently gives up after eight times,
    that is after a few networks in one program, since all networks have the same ``forward``.
    """

    def call(inputs: Tensor) -> Tensor:
        return forward(inputs)

    return FunctionType(call.__code__.replace(), call.__globals__, closure=call.__closure__)
