"""The general engine: any network; one step of all replicas is one compiled function."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lnsgd import compat
from lnsgd.replicas.engines.base import Batches, Engine, StepRule, TrainingState
from lnsgd.replicas.engines.narrowing import NarrowState, computed_replicas, split_at_multiples, steps_between_widths

_SLOTS = 32


class _Slots(NamedTuple):
    """The batches of up to ``_SLOTS`` steps of W replicas, in memory that a compiled step reads.

    Attributes:
        rows: Rows of the inputs, shape (S, W, B).
        targets: Shape (S, W, B) or (S, W, B, C).
        weights: Weight of each example in its batch: 1/size, and 0 for padding, shape (S, W, B).
        lrs: Learning rates, shape (S, W).
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor
    lrs: Tensor


class _StepMemory:
    """The tensors that steps of W replicas read and change, which keep their address.

    Args:
        state: The state of all R replicas.
        width: W.
        batches: Batches of the shapes and types of all others.
        device: Device of the run.

    Attributes:
        narrow: The copy of W replicas; ``None`` if W = R.
        state: The state of the W replicas.
        losses: Sums of their losses (W,), float64.
        clock: The slot that the next step reads, and the number of steps taken before it.
        slots: The next batches.
        graph: The CUDA graph of a step, and the addresses of the tensors that it works on.
    """

    def __init__(self, state: TrainingState, width: int, batches: Batches, device: torch.device) -> None:
        self.narrow = None if width == len(state.frozen_at) else NarrowState(state, width)
        self.state = self.narrow.state if self.narrow else state
        self.losses = torch.zeros(width, dtype=torch.float64, device=device)
        self.clock = torch.zeros(2, dtype=torch.int64, device=device)
        self.slots = _empty_slots(batches, width, next(iter(state.parameters.values())).dtype, device)
        self.graph: tuple[torch.cuda.CUDAGraph, list[int]] | None = None

    @property
    def width(self) -> int:
        """Number of replicas that are computed, W."""
        return len(self.losses)

    def load(self, batches: Batches, start: int, stop: int, replicas: Tensor | slice) -> None:
        """Copy steps ``start`` to ``stop − 1`` of some replicas into the slots.

        Padding becomes a repetition of the batch's first example with weight 0, so that no value in the
        padding can make an output or a gradient NaN.
        """
        columns = batches.rows, batches.targets, batches.sizes, batches.lrs
        rows, targets, sizes, lrs = (column[:, start:stop][replicas] for column in columns)
        assert rows.shape[2] == self.slots.rows.shape[2], "batches are padded to one size"
        given = torch.arange(rows.shape[2], device=rows.device) < sizes.unsqueeze(2)
        rows = torch.where(given, rows, rows[:, :, :1])
        shape = given.shape + (1,) * (targets.ndim - 3)
        # Targets are made on the training device; other columns may be on the CPU.
        targets = torch.where(given.view(shape).to(targets.device), targets, targets[:, :, :1])
        for slot, values in zip(self.slots, (rows, targets, given.double() / sizes.unsqueeze(2), lrs)):
            slot[: stop - start] = values.transpose(0, 1)
        self.clock.copy_(torch.tensor([0, batches.first_step + start]))


class _SGDStep:
    """One SGD step of several replicas, as a function of tensors that it changes in place.

    Args:
        rule: How a step is taken; the network computes in training mode.
        state: State of the parameters' names, and of which are trained.
        inputs: Network inputs (N, …).
    """

    def __init__(self, rule: StepRule, state: TrainingState, inputs: Tensor) -> None:
        self.rule = rule
        self.inputs = inputs
        self._net = copy.deepcopy(rule.net).train()
        self._buffers = {name: buffer.to(inputs.device) for name, buffer in rule.net.named_buffers()}
        self._names = list(state.parameters)
        self._trained = [name for name, parameter in state.parameters.items() if parameter.requires_grad]

    def tensors(self, memory: _StepMemory) -> list[Tensor]:
        """Return the arguments of a step, in order."""
        parameters = [parameter.detach() for parameter in memory.state.parameters.values()]
        velocity = [memory.state.velocity[name] for name in self._trained] if self.rule.momentum else []
        state = [*parameters, *self._buffers.values(), *velocity, memory.state.frozen_at]
        return [*state, memory.losses, memory.clock, self.inputs, *memory.slots]

    def __call__(self, *tensors: Tensor) -> None:
        """Take a step on the batches in the clock's slot."""
        flat = iter(tensors)
        parameters = dict(zip(self._names, flat))
        buffers = dict(zip(self._buffers, flat))
        velocity = dict(zip(self._trained if self.rule.momentum else (), flat))
        frozen_at, losses, clock, inputs, *slots = flat
        rows, targets, weights, lrs = (slot.index_select(0, clock[:1]).squeeze(0) for slot in slots)

        losses_now, finite, gradients = self._gradients(parameters, buffers, inputs[rows], targets, weights)
        running = frozen_at < 0
        moving = running & finite
        for name, gradient in gradients.items():
            shape = (-1,) + (1,) * (gradient.ndim - 1)
            moves, lr, parameter = moving.view(shape), lrs.view(shape), parameters[name]
            if velocity:
                gradient = self.rule.momentum * velocity[name] + gradient
                velocity[name].copy_(torch.where(moves, gradient, velocity[name]))
            parameter.copy_(torch.where(moves, parameter - lr * gradient, parameter))
        losses.add_(torch.where(moving, losses_now.double(), 0.0))
        frozen_at.copy_(torch.where(running & ~finite, clock[1], frozen_at))
        clock.add_(1)

    def _gradients(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the loss of each replica (R,), whether its outputs are finite (R,), and its gradients by name."""
        leaves = {name: parameters[name].detach().requires_grad_() for name in self._trained}

        def outputs_of(own: dict[str, Tensor], batch: Tensor) -> Tensor:
            return functional_call(self._net, (own, buffers), (batch,))

        with torch.enable_grad():
            outputs = vmap(outputs_of)(parameters | leaves, x)
            per_example = self.rule.loss(outputs.flatten(0, 1), targets.flatten(0, 1))
            losses = (per_example.view(weights.shape) * weights).sum(1)
            # Replicas share nothing, so the gradient of the sum of losses holds the gradient of each.
            gradients = torch.autograd.grad(
                losses.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
            )
        finite = outputs.detach().isfinite().flatten(1).all(1)
        return losses.detach(), finite, dict(zip(leaves, gradients))


class GeneralEngine(Engine):
    """Takes the steps of any network with any loss and any kind of targets, on the CPU and on CUDA.

    A step maps the network over the stacked parameters (`torch.func.vmap`), takes the gradient of the
    sum of all replicas' losses, and updates all parameters in place. Forward pass, backward pass and
    update are traced into one graph, which TorchInductor compiles at the first `run`; on CUDA the compiled
    step is replayed as a CUDA graph.

    Once enough replicas are frozen, half as many (rounded up) are computed, and so on by halves; a step for each number
    is compiled when it is first needed. Which replicas are computed depends on the step and on
    `TrainingState.frozen_at` alone (`lnsgd.replicas.engines.narrowing.computed_replicas`), so the result does not
    depend, bit for bit, on how steps are divided into calls, nor on whether another engine continues from the state. If
    another number of replicas is computed, sums may be taken in another order, so the last bits of a replica may depend
    on when others were frozen.

    Args:
        rule: How a step is taken; the network computes in training mode.
        state: Weights, velocities and frozen replicas, on the device of ``inputs``; changed in place.
        inputs: Network inputs (N, …) of the parameters' type and device.
        compile: Whether to compile; otherwise PyTorch runs the step operation by operation, which gives
            the same result up to the order of sums, slowly.
        steps_per_width: Interval of steps at whose multiples the number of computed replicas may change; by default
            the result of `lnsgd.replicas.engines.narrowing.steps_between_widths`.

    Raises:
        ValueError: at the first `run` on a CPU, if there is no C++ compiler.
    """

    name = "general"

    def __init__(
        self,
        rule: StepRule,
        state: TrainingState,
        inputs: Tensor,
        compile: bool = True,
        *,
        steps_per_width: int | None = None,
    ) -> None:
        super().__init__(rule, state, inputs)
        self.compile = compile
        self.steps_per_width = steps_per_width
        self._step = _SGDStep(rule, state, inputs)
        self._memory: _StepMemory | None = None
        self._compiled: dict[int, Callable[..., object]] = {}  # by width

    @classmethod
    def unsupported(cls, rule: StepRule, device: torch.device) -> str | None:
        """Return what this engine cannot run, as the end of a sentence, or ``None`` if it can run the rule.

        The modules of ``torch.nn`` that in training are random, mix the examples of a batch, or change their buffers
        are known. Other code that does so raises PyTorch's error at the first step.
        """
        if device.type not in ("cpu", "cuda"):
            return f"it runs on cpu and cuda, not on {device.type}"
        for name, module in rule.net.named_modules():
            why = _why_unsupported(module)
            if why is not None:
                return f"its module `{name}` ({type(module).__name__}) {why}"
        return None

    @torch.no_grad()
    def run(self, batches: Batches, losses: Tensor | None = None) -> Tensor:
        """Take the steps of some batches; see `Engine.run`."""
        replicas, steps, batch_size = batches.rows.shape
        losses = torch.zeros(replicas, dtype=torch.float64) if losses is None else losses
        interval = self.steps_per_width
        if interval is None:
            size = sum(parameter[0].numel() for parameter in self.state.parameters.values())
            interval = steps_between_widths(size, batch_size, replicas, self.inputs.device)
        for start, stop in split_at_multiples(batches.first_step, batches.first_step + steps, interval):
            chosen = computed_replicas(self.state.frozen_at.tolist(), start, interval)
            if self._memory is None or self._memory.width != len(chosen):
                self._memory = _StepMemory(self.state, len(chosen), batches, self.inputs.device)
            self._take(batches, start - batches.first_step, stop - batches.first_step, chosen, self._memory, losses)
        return losses

    def _take(
        self, batches: Batches, start: int, stop: int, chosen: list[int], memory: _StepMemory, losses: Tensor
    ) -> None:
        """Take steps ``start`` to ``stop − 1`` of the batches with the chosen replicas, and add their losses."""
        replicas: Tensor | slice = slice(None)  # which copies nothing
        if memory.narrow:
            replicas = torch.tensor(chosen)
            memory.narrow.gather(replicas)
        memory.losses.copy_(losses[replicas])
        take_step = self._step_on(memory)
        for first in range(start, stop, _SLOTS):
            last = min(first + _SLOTS, stop)
            memory.load(batches, first, last, replicas)
            for _ in range(first, last):
                take_step()
        losses[replicas] = memory.losses.cpu()
        if memory.narrow:
            memory.narrow.scatter()

    def _step_on(self, memory: _StepMemory) -> Callable[[], object]:
        """Return the function that takes the next step in some memory."""
        tensors = self._step.tensors(memory)
        if not self.compile:
            return lambda: self._step(*tensors)
        if memory.width not in self._compiled:
            self._compiled[memory.width] = compat.compile_with_inductor(
                self._step, tensors, "use compile=False or `engine: kernel`"
            )
        step = self._compiled[memory.width]
        if self.inputs.device.type == "cpu":
            return lambda: step(*tensors)
        addresses = [tensor.data_ptr() for tensor in tensors]
        if memory.graph is None or addresses != memory.graph[1]:
            memory.graph = _capture(step, tensors), addresses
        return memory.graph[0].replay


def _empty_slots(batches: Batches, width: int, dtype: torch.dtype, device: torch.device) -> _Slots:
    batch_size = batches.rows.shape[2]
    return _Slots(
        rows=torch.zeros(_SLOTS, width, batch_size, dtype=torch.int64, device=device),
        targets=torch.zeros(
            (_SLOTS, width, *batches.targets.shape[2:]),
            dtype=dtype if batches.targets.is_floating_point() else torch.int64,
            device=device,
        ),
        weights=torch.zeros(_SLOTS, width, batch_size, dtype=dtype, device=device),
        lrs=torch.zeros(_SLOTS, width, dtype=dtype, device=device),
    )


def _why_unsupported(module: nn.Module) -> str | None:
    if isinstance(module, compat.batch_norm_base()):
        return "changes buffers and mixes the examples of a batch in training"
    if getattr(module, "track_running_stats", False):
        return "changes buffers in training"
    if isinstance(module, nn.RReLU) or compat.dropout_rate(module) > 0:
        return "is random in training"
    return None


def _capture(step: Callable[..., object], tensors: list[Tensor]) -> torch.cuda.CUDAGraph:
    """Capture a CUDA graph of one step that changes these tensors in place; their values stay as they are."""
    # The first calls load kernels, which must not be captured; they work on copies.
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
