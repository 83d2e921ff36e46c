"""The kernel engine of matrix factorizations."""

from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from lnsgd.losses import SquaredLoss
from lnsgd.models import MatrixFactorization
from lnsgd.replicas.engines.base import Batches, StepRule, TrainingState
from lnsgd.replicas.engines.kernel import KernelEngine

_NAME = "factor"


class FactorizationKernel(KernelEngine):
    """Takes the steps of `lnsgd.models.MatrixFactorization` in compiled loops on the CPU.

    A step on a batch of one example is one product of two d × d matrices.

    Args:
        rule: How a step is taken.
        state: Weights, velocities and frozen replicas; changed in place.
        inputs: Measurement matrices A (N, d, d); A + Aᵀ is kept too.

    Raises:
        ValueError: a rule that this engine cannot run, see `unsupported`.
    """

    network = MatrixFactorization
    losses: ClassVar[Any] = (SquaredLoss,)

    def __init__(self, rule: StepRule, state: TrainingState, inputs: Tensor) -> None:
        super().__init__(rule, state, inputs)
        loops: Any = self.compiled_loops()
        replicas, size, rank = state.parameters[_NAME].shape
        rows, columns = loops.padded(size, loops.ROWS), loops.padded(rank, loops.lanes(inputs.element_size()))
        # Allocated by torch, which aligns memory so that vectors are read fastest.
        self._pool = inputs.new_zeros(len(inputs), rows, size)
        torch.add(inputs, inputs.mT, out=self._pool[:, :size])
        self._factors = inputs.new_zeros(replicas, rows, columns)
        self._velocities = torch.zeros_like(self._factors) if rule.momentum else inputs.new_zeros(replicas, 0, 0)

    @classmethod
    def unsupported_network(cls, net: MatrixFactorization) -> str | None:
        """Return what the loops cannot run about a factorization, or ``None``."""
        return None if net.factor.requires_grad else "its factor is frozen, the kernel trains it"

    def compiled_loops(self) -> ModuleType:
        """Import the loops."""
        from lnsgd.replicas.engines import factorization_loops

        return factorization_loops

    def loop_arguments(self) -> tuple[Any, ...]:
        """Return padded factors, their velocities, the inputs and the momentum."""
        factors, velocities, pool = (tensor.numpy() for tensor in (self._factors, self._velocities, self._pool))
        return factors, velocities, pool, float(self.rule.momentum)

    def loop_scratch(self, arguments: tuple[Any, ...], batch_size: int) -> Any:
        """Return memory for the intermediate results of a step."""
        factors, _, pool, _ = arguments
        return self.compiled_loops().scratch_for(factors, pool)

    def num_outputs(self) -> int:
        """Return 1."""
        return 1

    def run(self, batches: Batches, losses: Tensor | None = None) -> Tensor:
        """Take the steps of some batches; see `Engine.run`."""
        self._copy_to_padded()
        losses = super().run(batches, losses)
        self._copy_from_padded()
        return losses

    def _copy_to_padded(self) -> None:
        for tensor, padded in self._trained():
            padded.copy_(tensor)

    def _copy_from_padded(self) -> None:
        for tensor, padded in self._trained():
            tensor.copy_(padded)

    def _trained(self) -> list[tuple[Tensor, Tensor]]:
        """Return the tensors of the state, each with the part of the padded tensor that it fills."""
        factor, velocity = self.state.parameters[_NAME].detach(), self.state.velocity
        trained = [(factor, self._factors)]
        if _NAME in velocity:
            trained.append((velocity[_NAME], self._velocities))
        return [(tensor, padded[:, : factor.shape[1], : factor.shape[2]]) for tensor, padded in trained]
