"""The interface of the engines: what they are given, and what they change."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lnsgd.label_noise import TargetKind
from lnsgd.losses import Loss


@dataclass(frozen=True)
class StepRule:
    """How an SGD step is taken, the same for all replicas.

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
class TrainingState:
    """The tensors that an engine changes in place.

    Attributes:
        parameters: All parameters of the network by name, each with a leading replica dimension, (R, …).
            Only those that require a gradient are trained.
        velocity: v of the trained parameters; empty without momentum.
        frozen_at: Number of steps that a replica had taken when it was frozen, −1 for replicas that are running. Shape
            (R,), int64. A frozen replica takes no further step. An engine freezes a replica if an output on its next
            batch is NaN or infinite; a caller may freeze one between two calls, at the number of steps taken so far.
    """

    parameters: dict[str, nn.Parameter]
    velocity: dict[str, Tensor]
    frozen_at: Tensor


@dataclass(frozen=True)
class Batches:
    """The batches of K consecutive steps of R replicas.

    Attributes:
        first_step: Number of steps taken before.
        rows: Rows of the inputs, shape (R, K, B), int64.
        sizes: Number of examples in each batch, 1 to B, shape (R, K), int64. Further entries of ``rows`` and
            ``targets`` are padding.
        targets: Noisy targets: class indices (R, K, B), int64, or soft or real targets (R, K, B, C).
        lrs: Learning rate of each step, shape (R, K), float64.
    """

    first_step: int
    rows: Tensor
    sizes: Tensor
    targets: Tensor
    lrs: Tensor


class Engine(ABC):
    """Base of the engines, which take SGD steps with all replicas.

    All engines do the same arithmetic up to the order of sums, so that a run may continue with another one.

    Args:
        rule: How a step is taken.
        state: Weights, velocities and frozen replicas; changed in place.
        inputs: Network inputs (N, …) of the parameters' type and device, from which batches take rows.
    """

    name: ClassVar[str]

    def __init__(self, rule: StepRule, state: TrainingState, inputs: Tensor) -> None:
        self.rule = rule
        self.state = state
        self.inputs = inputs

    @classmethod
    @abstractmethod
    def unsupported(cls, rule: StepRule, device: torch.device) -> str | None:
        """Return what this engine cannot run, as the end of a sentence, or ``None`` if it can run the rule."""

    @abstractmethod
    def run(self, batches: Batches, losses: Tensor | None = None) -> Tensor:
        """Take the steps of some batches.

        Args:
            batches: The batches.
            losses: Sums so far, shape (R,), float64, on the CPU, to which the losses of the steps are added one by one,
                so that a sum does not depend on how steps are divided into calls; zeros by default.

        Returns:
            ``losses``, changed in place: for each replica the sum over its steps of the mean loss over the batch before
            the step. Steps that a frozen replica did not take are not included.
        """
