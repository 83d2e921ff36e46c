"""The kernel engine: nets with one hidden layer, at the speed of a C loop."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss, class_probabilities
from lnsgd.models import MLP, CubicPlusLinear
from lnsgd.replicas.engine import Chunk, Engine, Recipe, State
from lnsgd.replicas.threads import over_threads

# In the order of their codes in the compiled loops.
_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "logistic", CubicPlusLinear: "cubic"}
_LOSSES = (LogisticLoss, HingeLoss, CrossEntropy, SquaredLoss)
# In the order of the fields of `Net` in the compiled loops.
_NAMES = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "skip.weight")
_FLOATS = (torch.float32, torch.float64)


class KernelEngine(Engine):
    """Runs `lnsgd.models.MLP` with one hidden layer in compiled loops on the CPU, replicas in parallel over threads.

    Zero inputs, silent neurons and examples without a gradient cost nothing. A replica is run by one
    thread, so that results do not depend on the number of threads (at most `torch.get_num_threads`).

    The weight of the hidden layer is laid out anew at the construction, input-major, in ``state.parameters``
    and ``state.velocity``: tensors keep their shape, their identity and their numbers, not their memory.

    Args:
        recipe: What is the same in all replicas.
        state: Where they stand; changed in place.
        inputs: The pool of network inputs (N, …); a copy without the zeros is kept.

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
        from lnsgd.replicas import kernel_loops

        self._loops = kernel_loops
        for tensors in (state.parameters, state.velocity):
            for name, tensor in tensors.items():
                tensor.data = _input_major(tensor.data) if name == "layers.0.weight" else tensor.data.contiguous()
        self._pool = kernel_loops.pool_of(inputs.flatten(1).contiguous().numpy())
        self._rule = self._rule_of(recipe)
        self._absent = self._stand_ins()

    @staticmethod
    def unsupported(recipe: Recipe, device: torch.device) -> str | None:
        """What this engine cannot run, as the end of a sentence, or ``None`` where it can run it all."""
        net, loss = recipe.net, recipe.loss
        if device.type != "cpu":
            return f"device {device}: the kernel runs on the CPU"
        if type(net) is not MLP:
            return f"it is a {type(net).__name__}, the kernel runs MLP"
        if len(net.activations) != 1:
            return f"it has {len(net.activations)} hidden layers, the kernel runs one"
        if type(net.activations[0]) not in _ACTIVATIONS:
            names = ", ".join(_ACTIVATIONS.values())
            return f"its activation {type(net.activations[0]).__name__} is not one of {names}"
        if type(loss) not in _LOSSES:
            names = ", ".join(known.__name__ for known in _LOSSES)
            return f"the loss {type(loss).__name__} is not one of {names}"
        kind = net.layers[0].weight.dtype
        return None if kind in _FLOATS else f"its weights are {kind}, the kernel runs float32 and float64"

    def run(self, chunk: Chunk, losses: Tensor | None = None) -> Tensor:
        """Takes the steps; see `Engine.run`."""
        loops = self._loops
        replicas = len(chunk.rows)
        losses = torch.zeros(replicas, dtype=torch.float64) if losses is None else losses
        net, trained, goal = self._tensors()
        batches = loops.Batches(
            *(tensor.contiguous().numpy() for tensor in (chunk.rows, chunk.sizes, self._values(chunk), chunk.lrs))
        )
        rest = (net, goal, trained, self._rule, self._pool, batches, chunk.first_step)
        outcome = self.state.frozen_at.numpy(), losses.numpy()

        def take(first: int, last: int) -> None:
            loops.take_steps(first, last, *rest, *outcome, loops.scratch_for(net, chunk.rows.shape[2]))

        over_threads(replicas, take)
        return losses

    def _stand_ins(self) -> dict[str, np.ndarray]:
        """What the loops take in place of tensors that a network may lack: biases of zero, a skip from no inputs."""
        hidden, output = (self.state.parameters[f"layers.{i}.weight"].shape[:2] for i in (0, 1))
        shapes = {"layers.0.bias": hidden, "layers.1.bias": output, "skip.weight": (*output, 0)}
        return {name: np.zeros(shape, self._pool.values.dtype) for name, shape in shapes.items()}

    def _tensors(self) -> tuple[Any, Any, Any]:
        """Weights, which of them are trained, and what gradients are added to: velocities, or the weights."""
        weights, trained, goals = [], [], []
        for name in _NAMES:
            parameter = self.state.parameters.get(name)
            if parameter is None:
                weights.append(self._absent[name])
                goals.append(self._absent[name])
                trained.append(False)
                continue
            goal = self.state.velocity.get(name, parameter)
            weights.append(_rows_of_neurons(parameter, name))
            goals.append(_rows_of_neurons(goal, name))
            trained.append(parameter.requires_grad)
        loops = self._loops
        return loops.Net(*weights), loops.Trained(*trained), loops.Net(*goals)

    def _values(self, chunk: Chunk) -> Tensor:
        """Targets as one number per output, (R, K, B, O): ±1 for the hinge loss, values or probabilities for others."""
        outputs = self.state.parameters["layers.1.weight"].shape[1]
        dtype = self.inputs.dtype
        targets = chunk.targets.flatten(0, 2)
        like = torch.empty(1, outputs, dtype=dtype).expand(len(targets), -1)
        if isinstance(self.recipe.loss, SquaredLoss):
            values = self.recipe.loss.values(like, targets)
        else:
            values = class_probabilities(like, targets)
            if isinstance(self.recipe.loss, HingeLoss):
                values = 2 * values - 1
        return values.to(dtype).reshape(*chunk.rows.shape, outputs)

    def _rule_of(self, recipe: Recipe) -> Any:
        net, loss = recipe.net, recipe.loss
        assert isinstance(net, MLP)
        activation = net.activations[0]
        nu = activation.nu if isinstance(activation, CubicPlusLinear) else 0.0
        parameter = 0.0
        if isinstance(loss, HingeLoss):
            parameter = loss.beta
        elif isinstance(loss, SquaredLoss):
            parameter = 1 / net.widths[-1] if loss.reduction == "mean" else 1.0
        codes = list(_ACTIVATIONS).index(type(activation)), _LOSSES.index(type(loss))
        return self._loops.Rule(codes[0], float(nu), codes[1], float(parameter), float(recipe.momentum))


def _input_major(weight: Tensor) -> Tensor:
    """The same tensor (R, H, d) on memory in the order (R, d, H)."""
    return weight.transpose(1, 2).contiguous().transpose(1, 2)


def _rows_of_neurons(tensor: Tensor, name: str) -> np.ndarray:
    """What the loops change: the tensor's own memory, neurons next to each other."""
    return (tensor.detach().transpose(1, 2) if name == _NAMES[0] else tensor.detach()).numpy()
