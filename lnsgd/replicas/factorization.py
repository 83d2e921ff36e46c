"""The kernel engine of matrix factorizations, at the speed of a C loop."""

from typing import ClassVar

import torch
from torch import Tensor

from lnsgd.losses import SquaredLoss
from lnsgd.models import MatrixFactorization
from lnsgd.replicas.engine import Chunk, Engine, Recipe, State
from lnsgd.replicas.threads import over_threads

_FLOATS = (torch.float32, torch.float64)
_NAME = "factor"


class FactorizationEngine(Engine):
    """Runs `lnsgd.models.MatrixFactorization` in compiled loops on the CPU, replicas in parallel over threads.

    A step of a batch of one is a product of two d × d matrices. A replica is run by one thread, so that results do
    not depend on the number of threads (at most `torch.get_num_threads`).

    Args:
        recipe: What is the same in all replicas.
        state: Where they stand; changed in place.
        inputs: The pool of measurement matrices A (N, d, d); A + Aᵀ is kept beside it.

    Raises:
        ValueError: a recipe that this engine cannot run, see `unsupported`.
    """

    name: ClassVar[str] = "kernel"

    def __init__(self, recipe: Recipe, state: State, inputs: Tensor) -> None:
        super().__init__(recipe, state, inputs)
        reason = self.unsupported(recipe, inputs.device)
        if reason is not None:
            raise ValueError(f"the kernel engine cannot run this network: {reason}")
        # Here, because Numba takes a while to import and most runs do not need it.
        from lnsgd.replicas import factorization_loops

        self._loops = factorization_loops
        replicas, size, rank = state.parameters[_NAME].shape
        rows, lanes = factorization_loops.padded(size, factorization_loops.ROWS), factorization_loops.lanes
        columns = factorization_loops.padded(rank, lanes(inputs.element_size()))
        # Of torch, which puts tensors where vectors of them are read fastest.
        self._pool = inputs.new_zeros(len(inputs), rows, size)
        torch.add(inputs, inputs.mT, out=self._pool[:, :size])
        self._factors = inputs.new_zeros(replicas, rows, columns)
        self._velocities = torch.zeros_like(self._factors) if recipe.momentum else inputs.new_zeros(replicas, 0, 0)

    @staticmethod
    def unsupported(recipe: Recipe, device: torch.device) -> str | None:
        """What this engine cannot run, as the end of a sentence, or ``None`` where it can run it all."""
        net, loss = recipe.net, recipe.loss
        if device.type != "cpu":
            return f"device {device}: the kernel runs on the CPU"
        if type(net) is not MatrixFactorization:
            return f"it is a {type(net).__name__}, this kernel runs MatrixFactorization"
        if type(loss) is not SquaredLoss:
            return f"the loss {type(loss).__name__} is not SquaredLoss"
        if not net.factor.requires_grad:
            return "its factor is frozen, the kernel trains it"
        return None if net.factor.dtype in _FLOATS else f"its weights are {net.factor.dtype}, not float32 or float64"

    def run(self, chunk: Chunk, losses: Tensor | None = None) -> Tensor:
        """Takes the steps; see `Engine.run`."""
        loops = self._loops
        losses = torch.zeros(len(chunk.rows), dtype=torch.float64) if losses is None else losses
        batches = loops.Batches(
            *(tensor.contiguous().numpy() for tensor in (chunk.rows, chunk.sizes, self._values(chunk), chunk.lrs))
        )
        factors, velocities, pool = (t.numpy() for t in (self._factors, self._velocities, self._pool))
        outcome = self.state.frozen_at.numpy(), losses.numpy()

        def take(first: int, last: int) -> None:
            scratch = loops.scratch_for(factors, pool)
            momentum = float(self.recipe.momentum)
            rest = batches, momentum, chunk.first_step, *outcome, scratch
            loops.take_steps(first, last, factors, velocities, pool, *rest)

        self._exchange(into_state=False)
        over_threads(len(factors), take)
        self._exchange(into_state=True)
        return losses

    def _values(self, chunk: Chunk) -> Tensor:
        """Targets as real numbers, (R, K, B)."""
        targets = chunk.targets.flatten(0, 2)
        outputs = self.inputs.new_empty(1, 1).expand(len(targets), -1)
        assert isinstance(self.recipe.loss, SquaredLoss)
        return self.recipe.loss.values(outputs, targets).to(self.inputs.dtype).reshape(chunk.rows.shape)

    def _exchange(self, into_state: bool) -> None:
        """Copies what is trained to where it is padded, or back."""
        for ours, named in ((self._factors, self.state.parameters), (self._velocities, self.state.velocity)):
            if _NAME in named:
                theirs = named[_NAME].detach()
                own = ours[:, : theirs.shape[1], : theirs.shape[2]]
                (theirs if into_state else own).copy_(own if into_state else theirs)
