"""Base of the kernel engines: their conditions, their targets, and replicas in parallel over threads."""

from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lnsgd.losses import HingeLoss, Loss, SquaredLoss, class_probabilities
from lnsgd.replicas.engines.base import Batches, Engine, StepRule, TrainingState

_FLOATS = (torch.float32, torch.float64)

# A thread that got slow replicas leaves its next portion to the others.
_PORTIONS_PER_THREAD = 4


class BatchArrays(NamedTuple):
    """`lnsgd.replicas.engines.base.Batches` as the compiled loops read them.

    Attributes:
        rows: Shape (R, K, B).
        sizes: Shape (R, K).
        targets: One number for each output, shape (R, K, B, O).
        lrs: Shape (R, K).
    """

    rows: np.ndarray
    sizes: np.ndarray
    targets: np.ndarray
    lrs: np.ndarray


class KernelEngine(Engine):
    """Base of the engines that run one kind of network in compiled loops on the CPU.

    Replicas run in parallel over at most `torch.get_num_threads` threads. One thread runs all steps of a replica, so
    that results do not depend on the number of threads.

    A subclass names the network and the losses that its loops know, and passes its tensors to the loops.

    Args:
        rule: How a step is taken.
        state: Weights, velocities and frozen replicas; changed in place.
        inputs: Network inputs (N, …).

    Raises:
        ValueError: a rule that this engine cannot run, see `unsupported`.
    """

    name: ClassVar[str] = "kernel"
    network: ClassVar[type[nn.Module]]
    losses: ClassVar[tuple[type[Loss], ...]]

    def __init__(self, rule: StepRule, state: TrainingState, inputs: Tensor) -> None:
        if (reason := self.unsupported(rule, inputs.device)) is not None:
            raise ValueError(f"the kernel engine cannot run this network: {reason}")
        super().__init__(rule, state, inputs)

    @classmethod
    def unsupported(cls, rule: StepRule, device: torch.device) -> str | None:
        """Return what this engine cannot run, as the end of a sentence, or ``None`` if it can run the rule."""
        net, loss = rule.net, rule.loss
        if device.type != "cpu":
            return f"device {device}: the kernel runs on the CPU"
        if type(net) is not cls.network:
            return f"it is a {type(net).__name__}, this kernel runs {cls.network.__name__}"
        if (reason := cls.unsupported_network(net)) is not None:
            return reason
        if type(loss) not in cls.losses:
            names = " or ".join(known.__name__ for known in cls.losses)
            return f"its loss is {type(loss).__name__}, this kernel runs {names}"
        kind = next(net.parameters()).dtype
        return None if kind in _FLOATS else f"its weights are {kind}, the kernel runs float32 and float64"

    @classmethod
    @abstractmethod
    def unsupported_network(cls, net: Any) -> str | None:
        """Return what the loops cannot run about a network of the class that they know, or ``None``."""

    @abstractmethod
    def compiled_loops(self) -> ModuleType:
        """Import the loops: Numba takes a while to import, and most runs do not need it."""

    @abstractmethod
    def loop_arguments(self) -> tuple[Any, ...]:
        """Return the arguments of the loops' ``take_steps`` between the replicas and the batches."""

    @abstractmethod
    def loop_scratch(self, arguments: tuple[Any, ...], batch_size: int) -> Any:
        """Return new memory of one thread for the intermediate results of a step.

        Args:
            arguments: From `loop_arguments`.
            batch_size: Number of examples in the largest batch.
        """

    @abstractmethod
    def num_outputs(self) -> int:
        """Return the number of outputs O of the network."""

    def run(self, batches: Batches, losses: Tensor | None = None) -> Tensor:
        """Take the steps of some batches; see `Engine.run`."""
        loops = self.compiled_loops()
        replicas, _, batch_size = batches.rows.shape
        losses = torch.zeros(replicas, dtype=torch.float64) if losses is None else losses
        targets = _target_values(self.rule.loss, batches.targets, self.num_outputs(), self.inputs.dtype)
        columns = batches.rows, batches.sizes, targets.reshape(*batches.rows.shape, -1), batches.lrs
        arrays = BatchArrays(*(column.contiguous().numpy() for column in columns))
        arguments = self.loop_arguments()
        outcome = self.state.frozen_at.numpy(), losses.numpy()

        def take(first: int, last: int) -> None:
            scratch = self.loop_scratch(arguments, batch_size)
            loops.take_steps(first, last, *arguments, arrays, batches.first_step, *outcome, scratch)

        over_threads(replicas, take)
        return losses


def _target_values(loss: Loss, targets: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    """Return targets (R, K, B) or (R, K, B, C) as one number for each output, (R·K·B, O).

    These are ±1 for the hinge loss, values for the squared loss, and probabilities for other losses.
    """
    flat = targets.flatten(0, 2)
    like = torch.empty(1, outputs, dtype=dtype).expand(len(flat), -1)
    if isinstance(loss, SquaredLoss):
        return loss.values(like, flat).to(dtype)
    probabilities = class_probabilities(like, flat)
    return 2 * probabilities - 1 if isinstance(loss, HingeLoss) else probabilities


def over_threads(replicas: int, take: Callable[[int, int], None]) -> None:
    """Call ``take(first, last)`` on portions of the replicas, in at most `torch.get_num_threads` threads.

    Args:
        replicas: Number of replicas; each is in one portion.
        take: Runs the replicas ``first`` to ``last − 1`` without holding the interpreter's lock.
    """
    threads = min(torch.get_num_threads(), replicas)
    if threads == 1:
        take(0, replicas)
        return
    portions = min(replicas, threads * _PORTIONS_PER_THREAD)
    bounds = [replicas * portion // portions for portion in range(portions + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda portion: take(*portion), pairwise(bounds)))
