"""What runs the steps of all replicas: the interface that both engines share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lnsgd.label_noise import TargetKind
from lnsgd.losses import Loss


@dataclass(frozen=True)
class Recipe:
    """What is the same in all replicas.

    Attributes:
        net: The network, for its structure; its weights are not used.
        loss: Per-example loss; a step takes the gradient of its mean over the batch.
        targets: Kind of the targets.
        momentum: v ← momentum·v + gradient, θ ← θ − lr·v, as in `torch.optim.SGD`; with 0 there is no v.
    """

    net: nn.Module
    loss: Loss
    targets: TargetKind
    momentum: float = 0.0


@dataclass
class State:
    """What an engine changes in place.

    Attributes:
        parameters: All parameters of the network by name, each with a leading replica dimension, (R, …).
            Only those that require a gradient are trained.
        velocity: v of the trained ones; empty without momentum.
        frozen_at: Steps that a replica had taken when it was frozen, so that it takes no further one; −1 for those
            that move. Shape (R,), int64. An engine freezes a replica where an output on its next batch is NaN or
            infinite; others may freeze one between two calls, at the number of steps taken by then.
    """

    parameters: dict[str, nn.Parameter]
    velocity: dict[str, Tensor]
    frozen_at: Tensor


@dataclass(frozen=True)
class Chunk:
    """The batches of the next K steps of R replicas.

    Attributes:
        first_step: Steps taken before.
        rows: Rows of the pool of inputs, shape (R, K, B), int64.
        sizes: Examples in each batch, shape (R, K), int64, 1 to B; what follows them in ``rows`` and
            ``targets`` is padding.
        targets: Noisy targets: class indices (R, K, B), int64, or soft or real ones (R, K, B, C).
        lrs: Learning rate of each step, shape (R, K), float64.
    """

    first_step: int
    rows: Tensor
    sizes: Tensor
    targets: Tensor
    lrs: Tensor


class Engine(ABC):
    """Takes SGD steps with all replicas.

    Both engines do the same arithmetic up to the order of sums, so that a run may go on with the other one.

    Args:
        recipe: What is the same in all replicas.
        state: Where they stand; changed in place.
        inputs: The pool of network inputs (N, …) of the parameters' type and device.
    """

    name: ClassVar[str]

    def __init__(self, recipe: Recipe, state: State, inputs: Tensor) -> None:
        self.recipe = recipe
        self.state = state
        self.inputs = inputs

    @staticmethod
    @abstractmethod
    def unsupported(recipe: Recipe, device: torch.device) -> str | None:
        """What this engine cannot run, as the end of a sentence, or ``None`` where it can run it all."""

    @abstractmethod
    def run(self, chunk: Chunk, losses: Tensor | None = None) -> Tensor:
        """Takes the steps.

        Args:
            chunk: Their batches.
            losses: Sums so far, shape (R,), float64, on the CPU, to which the steps' losses are added one after
                the other, so that the sum does not depend on how steps are cut into chunks; by default zeros.

        Returns:
            ``losses``, changed in place: each replica's sum over its steps of the mean loss over the batch before
            the step. Steps that a frozen replica did not take are not in it.
        """
