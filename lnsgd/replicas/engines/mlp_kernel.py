"""The kernel engine of networks with one hidden layer."""

from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.models import MLP, CubicPlusLinear
from lnsgd.replicas.engines.base import StepRule, TrainingState
from lnsgd.replicas.engines.kernel import KernelEngine

# In the order of their codes in the compiled loops.
_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "logistic", CubicPlusLinear: "cubic"}
_LOSSES = (LogisticLoss, HingeLoss, CrossEntropy, SquaredLoss)
# In the order of the fields of `Net` in the compiled loops.
_NAMES = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "skip.weight")


class MLPKernel(KernelEngine):
    """Takes the steps of `lnsgd.models.MLP` with one hidden layer in compiled loops on the CPU.

    Zero inputs, silent neurons and examples without a gradient cost nothing.

    The constructor changes the memory layout of the hidden layer's weight in ``state.parameters`` and
    ``state.velocity`` to input-major. The tensors keep their shape, their identity and their numbers.

    Args:
        rule: How a step is taken.
        state: Weights, velocities and frozen replicas; changed in place.
        inputs: Network inputs (N, …); a copy without the zeros is kept.

    Raises:
        ValueError: a rule that this engine cannot run, see `unsupported`.
    """

    network = MLP
    losses: ClassVar[Any] = _LOSSES

    def __init__(self, rule: StepRule, state: TrainingState, inputs: Tensor) -> None:
        super().__init__(rule, state, inputs)
        for tensors in (state.parameters, state.velocity):
            for name, tensor in tensors.items():
                tensor.data = _input_major(tensor.data) if name == _NAMES[0] else tensor.data.contiguous()
        loops: Any = self.compiled_loops()
        self._pool = loops.pool_of(inputs.flatten(1).contiguous().numpy())
        self._constants = loops.Rule(*_codes_of(rule))
        self._absent = self._stand_ins()

    @classmethod
    def unsupported_network(cls, net: MLP) -> str | None:
        """Return what the loops cannot run about an MLP, or ``None``."""
        if len(net.activations) != 1:
            return f"it has {len(net.activations)} hidden layers, the kernel runs one"
        if type(net.activations[0]) not in _ACTIVATIONS:
            names = ", ".join(_ACTIVATIONS.values())
            return f"its activation {type(net.activations[0]).__name__} is not one of {names}"
        return None

    def compiled_loops(self) -> ModuleType:
        """Import the loops."""
        from lnsgd.replicas.engines import mlp_loops

        return mlp_loops

    def loop_arguments(self) -> tuple[Any, ...]:
        """Return weights, the tensors that gradients are added to, which are trained, the rule and the inputs.

        Gradients are added to the velocities, or without momentum to the weights.
        """
        weights, targets, trained = [], [], []
        for name in _NAMES:
            parameter = self.state.parameters.get(name)
            if parameter is None:
                weights.append(self._absent[name])
                targets.append(self._absent[name])
                trained.append(False)
                continue
            weights.append(_rows_of_neurons(parameter, name))
            targets.append(_rows_of_neurons(self.state.velocity.get(name, parameter), name))
            trained.append(parameter.requires_grad)
        loops: Any = self.compiled_loops()
        return loops.Net(*weights), loops.Net(*targets), loops.Trained(*trained), self._constants, self._pool

    def loop_scratch(self, arguments: tuple[Any, ...], batch_size: int) -> Any:
        """Return memory for the intermediate results of a step."""
        return self.compiled_loops().scratch_for(arguments[0], batch_size)

    def num_outputs(self) -> int:
        """Return the number of outputs O of the network."""
        return self.state.parameters["layers.1.weight"].shape[1]

    def _stand_ins(self) -> dict[str, np.ndarray]:
        """Return what the loops get for tensors that a network may lack: biases of zero, a skip from no inputs."""
        hidden, output = (self.state.parameters[f"layers.{i}.weight"].shape[:2] for i in (0, 1))
        shapes = {"layers.0.bias": hidden, "layers.1.bias": output, "skip.weight": (*output, 0)}
        return {name: np.zeros(shape, self._pool.values.dtype) for name, shape in shapes.items()}


def _codes_of(rule: StepRule) -> tuple[int, float, int, float, float]:
    """Return the fields of `Rule` in the compiled loops: activation, ν, loss, parameter of the loss, momentum."""
    net, loss = rule.net, rule.loss
    assert isinstance(net, MLP)
    activation = net.activations[0]
    nu = activation.nu if isinstance(activation, CubicPlusLinear) else 0.0
    parameter = 0.0
    if isinstance(loss, HingeLoss):
        parameter = loss.beta
    elif isinstance(loss, SquaredLoss):
        parameter = 1 / net.widths[-1] if loss.reduction == "mean" else 1.0
    codes = list(_ACTIVATIONS).index(type(activation)), _LOSSES.index(type(loss))
    return codes[0], float(nu), codes[1], float(parameter), float(rule.momentum)


def _input_major(weight: Tensor) -> Tensor:
    """Return a weight (R, H, d) with the same numbers, in memory of the order (R, d, H)."""
    return weight.transpose(1, 2).contiguous().transpose(1, 2)


def _rows_of_neurons(tensor: torch.Tensor, name: str) -> np.ndarray:
    """Return the memory of a tensor as the loops change it, with neurons next to each other."""
    return (tensor.detach().transpose(1, 2) if name == _NAMES[0] else tensor.detach()).numpy()
