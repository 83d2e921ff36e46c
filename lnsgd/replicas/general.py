"""The general engine: any network; one step of all replicas is one compiled function."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lnsgd.replicas.compiler import check_cxx_compiler
from lnsgd.replicas.engine import Chunk, Engine, Recipe, State

_SLOTS = 32


class _Slots(NamedTuple):
    """The batches of up to ``_SLOTS`` steps, in memory that stays: what a compiled step reads.

    Attributes:
        rows: Rows of the pool of inputs, shape (S, R, B).
        targets: Shape (S, R, B) or (S, R, B, C).
        weights: What each example counts in its batch: 1/size, and 0 for padding, shape (S, R, B).
        lrs: Learning rates, shape (S, R).
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor
    lrs: Tensor


class GeneralEngine(Engine):
    """Any network, loss and kind of targets; CPU and CUDA.

    A step maps the network over the stacked parameters (`torch.func.vmap`), takes the gradient of the
    sum of all replicas' losses, and updates all parameters in place. Forward pass, backward pass and
    update are traced into one graph, which TorchInductor compiles at the first `run`; on CUDA the compiled
    step is replayed as a CUDA graph. The same program takes every step, so the result does not depend
    on how steps are cut into chunks.

    Args:
        recipe: What is the same in all replicas; the network computes in training mode.
        state: Where they stand, on the device of ``inputs``; changed in place.
        inputs: The pool of network inputs (N, …) of the parameters' type and device.
        compile: Whether to compile; otherwise PyTorch runs the step operation by operation, which gives
            the same result up to the order of sums, slowly.

    Raises:
        ValueError: at the first `run` on a CPU, if there is no C++ compiler.
    """

    name = "general"

    def __init__(self, recipe: Recipe, state: State, inputs: Tensor, compile: bool = True) -> None:
        super().__init__(recipe, state, inputs)
        self.compile = compile
        self._net = copy.deepcopy(recipe.net).train()
        self._buffers = {name: buffer.to(inputs.device) for name, buffer in recipe.net.named_buffers()}
        self._trained = [name for name, parameter in state.parameters.items() if parameter.requires_grad]
        self._losses = torch.zeros(len(state.frozen_at), dtype=torch.float64, device=inputs.device)
        # The slot that the next step reads, and how many steps were taken before it.
        self._clock = torch.zeros(2, dtype=torch.int64, device=inputs.device)
        self._slots: _Slots | None = None
        self._compiled: Callable[..., object] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured: list[int] = []

    @staticmethod
    def unsupported(recipe: Recipe, device: torch.device) -> str | None:
        """What this engine cannot run, as the end of a sentence, or ``None`` where it can run it all.

        It knows the modules of ``torch.nn`` that in training are random, mix the examples of a batch, or
        change their buffers. Other code that does so raises PyTorch's error at the first step.
        """
        if device.type not in ("cpu", "cuda"):
            return f"it runs on cpu and cuda, not on {device.type}"
        for name, module in recipe.net.named_modules():
            why = _why_unsupported(module)
            if why is not None:
                return f"its module `{name}` ({type(module).__name__}) {why}"
        return None

    @torch.no_grad()
    def run(self, chunk: Chunk, losses: Tensor | None = None) -> Tensor:
        """Takes the steps; see `Engine.run`."""
        if self._slots is None:
            self._slots = self._empty_slots(chunk)
        advance = self._advance([*self._state_tensors(), self._losses, self._clock, self.inputs, *self._slots])
        losses = torch.zeros(len(self._losses), dtype=torch.float64) if losses is None else losses
        self._losses.copy_(losses)
        steps = chunk.rows.shape[1]
        for start in range(0, steps, _SLOTS):
            stop = min(start + _SLOTS, steps)
            self._load(chunk, start, stop, self._slots)
            for _ in range(start, stop):
                advance()
        return losses.copy_(self._losses)

    def _state_tensors(self) -> list[Tensor]:
        parameters = [parameter.detach() for parameter in self.state.parameters.values()]
        velocity = [self.state.velocity[name] for name in self._trained] if self.recipe.momentum else []
        return [*parameters, *self._buffers.values(), *velocity, self.state.frozen_at]

    def _empty_slots(self, chunk: Chunk) -> _Slots:
        replicas, _, batch = chunk.rows.shape
        device, dtype = self.inputs.device, next(iter(self.state.parameters.values())).dtype
        return _Slots(
            rows=torch.zeros(_SLOTS, replicas, batch, dtype=torch.int64, device=device),
            targets=torch.zeros(
                (_SLOTS, replicas, *chunk.targets.shape[2:]),
                dtype=dtype if chunk.targets.is_floating_point() else torch.int64,
                device=device,
            ),
            weights=torch.zeros(_SLOTS, replicas, batch, dtype=dtype, device=device),
            lrs=torch.zeros(_SLOTS, replicas, dtype=dtype, device=device),
        )

    def _load(self, chunk: Chunk, start: int, stop: int, slots: _Slots) -> None:
        """Puts steps ``start`` to ``stop`` of the chunk into the slots.

        Padding becomes a repetition of the batch's first example with weight 0, so that no value in the
        padding can make an output or a gradient NaN.
        """
        rows, targets, sizes, lrs = (x[:, start:stop] for x in (chunk.rows, chunk.targets, chunk.sizes, chunk.lrs))
        assert rows.shape[2] == slots.rows.shape[2], "batches are padded to one size"
        given = torch.arange(rows.shape[2], device=rows.device) < sizes.unsqueeze(2)
        rows = torch.where(given, rows, rows[:, :, :1])
        shape = given.shape + (1,) * (targets.ndim - 3)
        # Targets are made on the training device, the rest of a chunk may be on the CPU.
        targets = torch.where(given.view(shape).to(targets.device), targets, targets[:, :, :1])
        for slot, values in zip(slots, (rows, targets, given.double() / sizes.unsqueeze(2), lrs)):
            slot[: stop - start] = values.transpose(0, 1)
        self._clock.copy_(torch.tensor([0, chunk.first_step + start]))

    def _step(self, *tensors: Tensor) -> None:
        """One SGD step of all replicas on the batches in the clock's slot; changes the tensors in place."""
        flat = iter(tensors)
        parameters = dict(zip(self.state.parameters, flat))
        buffers = dict(zip(self._buffers, flat))
        velocity = dict(zip(self._trained if self.recipe.momentum else (), flat))
        frozen_at, losses, clock, inputs, *slots = flat
        rows, targets, weights, lrs = (slot.index_select(0, clock[:1]).squeeze(0) for slot in slots)

        losses_now, finite, gradients = self._gradients(parameters, buffers, inputs[rows], targets, weights)
        running = frozen_at < 0
        moving = running & finite
        for name, gradient in gradients.items():
            shape = (-1,) + (1,) * (gradient.ndim - 1)
            moves, lr, parameter = moving.view(shape), lrs.view(shape), parameters[name]
            if velocity:
                gradient = self.recipe.momentum * velocity[name] + gradient
                velocity[name].copy_(torch.where(moves, gradient, velocity[name]))
            parameter.copy_(torch.where(moves, parameter - lr * gradient, parameter))
        losses.add_(torch.where(moving, losses_now.double(), 0.0))
        frozen_at.copy_(torch.where(running & ~finite, clock[1], frozen_at))
        clock.add_(1)

    def _gradients(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Each replica's loss (R,), whether its outputs are finite (R,), and its gradients (R, …) by name."""
        leaves = {name: parameters[name].detach().requires_grad_() for name in self._trained}

        def outputs_of(own: dict[str, Tensor], batch: Tensor) -> Tensor:
            return functional_call(self._net, (own, buffers), (batch,))

        with torch.enable_grad():
            outputs = vmap(outputs_of)(parameters | leaves, x)
            per_example = self.recipe.loss(outputs.flatten(0, 1), targets.flatten(0, 1))
            losses = (per_example.view(weights.shape) * weights).sum(1)
            # Replicas share nothing, so the gradient of their sum holds the gradient of each.
            gradients = torch.autograd.grad(
                losses.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
            )
        finite = outputs.detach().isfinite().flatten(1).all(1)
        return losses.detach(), finite, dict(zip(leaves, gradients))

    def _advance(self, tensors: list[Tensor]) -> Callable[[], object]:
        """What takes the next step."""
        if not self.compile:
            return lambda: self._step(*tensors)
        if self._compiled is None:
            self._compiled = _compile(self._step, tensors)
        step = self._compiled
        if self.inputs.device.type == "cpu":
            return lambda: step(*tensors)
        addresses = [tensor.data_ptr() for tensor in tensors]
        if self._graph is None or addresses != self._captured:
            self._graph, self._captured = _capture(step, tensors), addresses
        return self._graph.replay


def _why_unsupported(module: nn.Module) -> str | None:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "changes buffers and mixes the examples of a batch in training"
    if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
        return "changes buffers in training"
    rate = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else getattr(module, "dropout", 0)
    if isinstance(module, nn.RReLU) or (isinstance(rate, (int, float)) and rate > 0):
        return "is random in training"
    return None


def _compile(step: Callable[..., None], tensors: list[Tensor]) -> Callable[..., object]:
    """The step for tensors of these shapes as one compiled function, without the guards of `torch.compile`."""
    # Imported here because they take a second.
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    if tensors[0].device.type == "cpu":
        check_cxx_compiler("use compile=False or `engine: kernel`")
    return torch._inductor.compile(
        make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors), [*tensors]
    )


def _capture(step: Callable[..., object], tensors: list[Tensor]) -> torch.cuda.CUDAGraph:
    """A CUDA graph of one step that works in place on these tensors; leaves their values as they are."""
    # The first calls load kernels, which a capture must not see; they work on copies.
    copies = [tensor.clone() for tensor in tensors]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(*copies)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(*tensors)
    return graph
