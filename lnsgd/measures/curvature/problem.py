"""What is differentiated: the mean loss of a model over data, on one process or several."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lnsgd.measures.evaluation import evaluation_mode, finite_examples, is_finite, outputs_of, per_example
from lnsgd.measures.precision import at_least_single, full_precision, single_precision_weights

LossFunction = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]

# Derivatives keep what they need of every example in a batch, so larger ones are cut. ResNet-20 on the CPU
# is fastest between 32 and 128.
_CHUNK = 64


class NonFiniteError(ValueError):
    """A loss or its derivatives are NaN or infinite, as after divergence."""


@dataclass(frozen=True)
class Share:
    """This process's part of the data, where several take a measure together.

    Attributes:
        rank: Number of this process. It holds the examples rank, rank + world, … of every batch.
        world: Number of processes.
        reduce: Sums a tensor over all of them.
    """

    rank: int = 0
    world: int = 1
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums


class Problem:
    """The mean loss L(θ) over the data, θ the trainable parameters, the model in eval mode.

    Args:
        model: Any module; left as it is.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        data: Batches (inputs, labels) on the model's device, the same ones whenever it is iterated.
        share: Which part of the data this is.

    Raises:
        ValueError: no trainable parameter, BatchNorm without running statistics, or data that can be read only once.
        NonFiniteError: a weight or buffer is NaN or infinite; while iterating, an input or real target.
    """

    def __init__(self, model: nn.Module, loss: LossFunction, data: Batches, share: Share = Share()) -> None:
        self.model = model
        self.loss = loss
        self.share = share
        self.named = trainable(model)
        _check_examples_apart(model)
        if iter(data) is data:
            raise ValueError(
                f"data is a {type(data).__name__}, which can be read only once; give a list or a DataLoader of "
                "batches (inputs, labels)"
            )
        if not is_finite(model):
            raise NonFiniteError("a weight or buffer of the network is not finite (NaN or infinite)")
        self._data = data
        self._all_finite = torch.ones((), dtype=torch.bool, device=self.device)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """θ, tensor by tensor."""
        return list(self.named.values())

    @property
    def size(self) -> int:
        """Number of entries of θ."""
        return sum(p.numel() for p in self.parameters)

    @property
    def device(self) -> torch.device:
        """Where θ is."""
        return self.parameters[0].device

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches as they were given, out of any inference mode, in at least single precision."""
        for batch in self._data:
            # Tensors made in inference mode cannot be differentiated through.
            inputs, labels = (at_least_single(t.clone() if t.is_inference() else t) for t in batch[:2])
            self._all_finite &= finite_examples(inputs, labels).all()
            yield inputs, labels

    def outputs(self, inputs: Tensor) -> Tensor:
        """Outputs of the model.

        Raises:
            ValueError: they cannot be differentiated.
        """
        return outputs_of(self.model, inputs)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of every example, (B,).

        Raises:
            ValueError: the loss is not per example.
        """
        return per_example(self.loss(outputs, labels), len(outputs))

    def mean(self, sums: Tensor, samples: int) -> tuple[Tensor, int]:
        """Sums over this process's examples, as the mean over those of all processes, and their number.

        Raises:
            NonFiniteError: a sum is NaN or infinite.
            ValueError: no examples.
        """
        count = torch.tensor([samples], dtype=torch.float64, device=sums.device)
        # Before it is summed over processes, so that all of them stop.
        sums = sums + torch.where(self._all_finite, 0.0, torch.nan)
        sums, count = self.share.reduce(sums), self.share.reduce(count)
        if count.item() == 0:
            raise ValueError("no examples to take the curvature on; the data is empty")
        if not sums.isfinite().all():
            raise NonFiniteError("the loss or its derivatives are not finite (NaN or infinite) on this data")
        return sums / count, int(count.item())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that need a gradient, by name.

    Raises:
        ValueError: there is none.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError(f"{type(model).__name__} has no trainable parameter (requires_grad is False for all)")
    return named


def _check_examples_apart(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"{name or 'the model'} ({type(module).__name__}) has no running statistics, so that in eval mode as "
                "well an example changes the outputs of the others; a mean over examples needs track_running_stats=True"
            )


def chunks(inputs: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A batch in parts that derivatives of all examples fit in; none of one without examples."""
    if len(inputs):  # which not every model takes
        yield from zip(inputs.split(_CHUNK), *(other.split(_CHUNK) for other in others))


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """Eval mode with gradients on, in full precision, whatever the mode outside; all is put back.

    Derivatives are those of the function that the weights stand for, in at least single precision: autocast is off, and
    half-precision weights are float32 here, so that a `Problem` must be made inside. Its inputs are those that the
    network sees, rounded where it sees them rounded.
    """
    device = next((p.device.type for p in model.parameters()), "cpu")
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluation_mode(model),
        full_precision(device),
        sdpa_kernel(SDPBackend.MATH),  # fused attention has no second derivatives
        single_precision_weights(model),
    ):
        yield
