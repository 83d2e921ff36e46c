"""The general engine: any network; one step of all replicas is one compiled function."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lnsgd.replicas.compaction import CompactState, members, steps_between_widths, stretches
from lnsgd.replicas.compiler import check_cxx_compiler
from lnsgd.replicas.engine import Chunk, Engine, Recipe, State

_SLOTS = 32


class _Slots(NamedTuple):
    """The batches of up to ``_SLOTS`` steps, in memory that stays: what a compiled step reads.

    Attributes:
        rows: Rows of the pool of inputs, shape (S, W, B), of the W replicas of the stack.
        targets: Shape (S, W, B) or (S, W, B, C).
        weights: What each example counts in its batch: 1/size, and 0 for padding, shape (S, W, B).
        lrs: Learning rates, shape (S, W).
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor
    lrs: Tensor


class _Lane:
    """What the steps of a stack of one width work on, in memory that stays.

    Attributes:
        compact: The stack beside the state; ``None`` where it is the state itself.
        state: The W replicas of the stack.
        losses: Sums of their losses (W,), float64.
        clock: The slot that the next step reads, and how many steps were taken before it.
        slots: The next batches.
        graph: The CUDA graph of a step, and the addresses of the tensors that it works on.
    """

    def __init__(self, state: State, width: int, slots: _Slots) -> None:
        self.compact = None if width == len(state.frozen_at) else CompactState(state, width)
        self.state = self.compact.own if self.compact else state
        device = slots.rows.device
        self.losses = torch.zeros(width, dtype=torch.float64, device=device)
        self.clock = torch.zeros(2, dtype=torch.int64, device=device)
        self.slots = slots
        self.graph: tuple[torch.cuda.CUDAGraph, list[int]] | None = None

    @property
    def width(self) -> int:
        """W."""
        return len(self.losses)


class GeneralEngine(Engine):
    """Any network, loss and kind of targets; CPU and CUDA.

    A step maps the network over the stacked parameters (`torch.func.vmap`), takes the gradient of the
    sum of all replicas' losses, and updates all parameters in place. Forward pass, backward pass and
    update are traced into one graph, which TorchInductor compiles at the first `run`; on CUDA the compiled
    step is replayed as a CUDA graph.

    Once enough replicas are frozen, the others are stepped in a stack of half the width (rounded up), and so on by
    halves, each compiled when it is first needed. Which replicas are in the stack depends on the step and on
    `State.frozen_at` alone (`lnsgd.replicas.compaction.members`), so the result does not depend, bit for bit, on how
    steps are cut into chunks, nor on whether another engine goes on from the state. Between stacks of different width
    results may differ in the order of sums: so a replica's last bits may depend on when others were frozen.

    Args:
        recipe: What is the same in all replicas; the network computes in training mode.
        state: Where they stand, on the device of ``inputs``; changed in place.
        inputs: The pool of network inputs (N, …) of the parameters' type and device.
        compile: Whether to compile; otherwise PyTorch runs the step operation by operation, which gives
            the same result up to the order of sums, slowly.
        steps_per_width: The stack may become narrower at multiples of this number of steps; by default what
            `lnsgd.replicas.compaction.steps_between_widths` gives.

    Raises:
        ValueError: at the first `run` on a CPU, if there is no C++ compiler.
    """

    name = "general"

    def __init__(
        self,
        recipe: Recipe,
        state: State,
        inputs: Tensor,
        compile: bool = True,
        *,
        steps_per_width: int | None = None,
    ) -> None:
        super().__init__(recipe, state, inputs)
        self.compile = compile
        self.steps_per_width = steps_per_width
        self._net = copy.deepcopy(recipe.net).train()
        self._buffers = {name: buffer.to(inputs.device) for name, buffer in recipe.net.named_buffers()}
        self._trained = [name for name, parameter in state.parameters.items() if parameter.requires_grad]
        self._lane: _Lane | None = None
        self._compiled: dict[int, Callable[..., object]] = {}  # by width

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
        losses = torch.zeros(len(self.state.frozen_at), dtype=torch.float64) if losses is None else losses
        grid = self._steps_per_width(chunk) if self.steps_per_width is None else self.steps_per_width
        for start, stop in stretches(chunk.first_step, chunk.first_step + chunk.rows.shape[1], grid):
            chosen = members(self.state.frozen_at.tolist(), start, grid)
            if self._lane is None or self._lane.width != len(chosen):
                self._lane = _Lane(self.state, len(chosen), self._empty_slots(chunk, len(chosen)))
            self._take(chunk, start - chunk.first_step, stop - chunk.first_step, chosen, self._lane, losses)
        return losses

    def _steps_per_width(self, chunk: Chunk) -> int:
        replicas, _, batch = chunk.rows.shape
        size = sum(parameter[0].numel() for parameter in self.state.parameters.values())
        return steps_between_widths(size, batch, replicas, self.inputs.device)

    def _take(self, chunk: Chunk, start: int, stop: int, chosen: list[int], lane: _Lane, losses: Tensor) -> None:
        """Takes steps ``start`` to ``stop`` of the chunk with the chosen replicas; adds their losses."""
        rows: Tensor | slice = slice(None)  # which copies nothing
        if lane.compact:
            rows = torch.tensor(chosen)
            lane.compact.gather(rows)
        lane.losses.copy_(losses[rows])
        advance = self._advance(lane)
        for first in range(start, stop, _SLOTS):
            last = min(first + _SLOTS, stop)
            self._load(chunk, first, last, rows, lane)
            for _ in range(first, last):
                advance()
        losses[rows] = lane.losses.cpu()
        if lane.compact:
            lane.compact.scatter()

    def _tensors(self, lane: _Lane) -> list[Tensor]:
        """What `_step` takes, in its order."""
        parameters = [parameter.detach() for parameter in lane.state.parameters.values()]
        velocity = [lane.state.velocity[name] for name in self._trained] if self.recipe.momentum else []
        state = [*parameters, *self._buffers.values(), *velocity, lane.state.frozen_at]
        return [*state, lane.losses, lane.clock, self.inputs, *lane.slots]

    def _empty_slots(self, chunk: Chunk, width: int) -> _Slots:
        batch = chunk.rows.shape[2]
        device, dtype = self.inputs.device, next(iter(self.state.parameters.values())).dtype
        return _Slots(
            rows=torch.zeros(_SLOTS, width, batch, dtype=torch.int64, device=device),
            targets=torch.zeros(
                (_SLOTS, width, *chunk.targets.shape[2:]),
                dtype=dtype if chunk.targets.is_floating_point() else torch.int64,
                device=device,
            ),
            weights=torch.zeros(_SLOTS, width, batch, dtype=dtype, device=device),
            lrs=torch.zeros(_SLOTS, width, dtype=dtype, device=device),
        )

    def _load(self, chunk: Chunk, start: int, stop: int, chosen: Tensor | slice, lane: _Lane) -> None:
        """Puts steps ``start`` to ``stop`` of the chosen replicas' part of the chunk into the slots.

        Padding becomes a repetition of the batch's first example with weight 0, so that no value in the
        padding can make an output or a gradient NaN.
        """
        parts = (chunk.rows, chunk.targets, chunk.sizes, chunk.lrs)
        rows, targets, sizes, lrs = (part[:, start:stop][chosen] for part in parts)
        assert rows.shape[2] == lane.slots.rows.shape[2], "batches are padded to one size"
        given = torch.arange(rows.shape[2], device=rows.device) < sizes.unsqueeze(2)
        rows = torch.where(given, rows, rows[:, :, :1])
        shape = given.shape + (1,) * (targets.ndim - 3)
        # Targets are made on the training device, the rest of a chunk may be on the CPU.
        targets = torch.where(given.view(shape).to(targets.device), targets, targets[:, :, :1])
        for slot, values in zip(lane.slots, (rows, targets, given.double() / sizes.unsqueeze(2), lrs)):
            slot[: stop - start] = values.transpose(0, 1)
        lane.clock.copy_(torch.tensor([0, chunk.first_step + start]))

    def _step(self, *tensors: Tensor) -> None:
        """One SGD step of a stack on the batches in the clock's slot; changes the tensors in place."""
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

    def _advance(self, lane: _Lane) -> Callable[[], object]:
        """What takes the next step."""
        tensors = self._tensors(lane)
        if not self.compile:
            return lambda: self._step(*tensors)
        if lane.width not in self._compiled:
            self._compiled[lane.width] = _compile(self._step, tensors)
        step = self._compiled[lane.width]
        if self.inputs.device.type == "cpu":
            return lambda: step(*tensors)
        addresses = [tensor.data_ptr() for tensor in tensors]
        if lane.graph is None or addresses != lane.graph[1]:
            lane.graph = _capture(step, tensors), addresses
        return lane.graph[0].replay


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
    """The step for tensors of these shapes as one compiled function, without the guards of `torch.compile`.

    TorchInductor keeps it on disk: another process that compiles the same step gets it from there.
    """
    # Imported here because they take a second.
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    if tensors[0].device.type == "cpu":
        check_cxx_compiler("use compile=False or `engine: kernel`")
    graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    # `torch._inductor.compile` outside of a tracing context never looks into the cache on disk.
    return torch._inductor.standalone_compile(graph, [*tensors], dynamic_shapes="from_example_inputs")


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
