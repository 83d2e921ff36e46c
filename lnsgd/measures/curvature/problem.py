"""The function that is differentiated: the mean loss of a model over data, on one process or several."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lnsgd import compat
from lnsgd.measures.curvature.twice_differentiable import TwiceDifferentiable, missing_derivatives_named
from lnsgd.measures.evaluation import (
    WHOLE,
    LossFunction,
    Share,
    check_real,
    evaluation_mode,
    trainable,
)
from lnsgd.measures.forward import Batches, Inputs, OutputsFunction, map_inputs, outputs_of, split_inputs, tensors_in
from lnsgd.measures.labels import example_losses, labelled_losses
from lnsgd.measures.nonfinite import NonFiniteError, finite_examples, is_finite
from lnsgd.measures.precision import at_least_single, full_precision, single_precision_weights
from lnsgd.measures.report import Report

# Derivatives keep intermediate results of every example in a batch, so larger batches are cut. ResNet-20 on the CPU is
# fastest between 32 and 128.
_CHUNK = 64


class Problem:
    """The mean loss L(θ) over the data, θ the trainable parameters, the model in eval mode.

    Args:
        model: Any module; it is not changed.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``.
        data: Batches (inputs, labels) on the model's device, the same whenever it is iterated.
        share: The part of the data that this process holds.
        outputs: How the network is called, see `lnsgd.measures.forward`.
        report: Is told the progress.

    Raises:
        ValueError: no trainable parameter, a complex one, BatchNorm without running statistics, or data that can be
            read only once.
        NonFiniteError: a weight or buffer is NaN or infinite; while iterating, an input or real target.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        data: Batches,
        share: Share = WHOLE,
        outputs: OutputsFunction = outputs_of,
        report: Report | None = None,
    ) -> None:
        self.model = model
        self.calling = outputs
        self._report = report
        self._weight = self.weight = 0.0
        self._done, self._expected = 0, 0.0
        self.loss = loss
        self.share = share
        self.named = trainable(model)
        check_real(self.named)
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
        """Device of θ."""
        return self.parameters[0].device

    def batches(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield the batches in at least single precision, as tensors that can be differentiated through."""
        self._weight = 0.0
        for batch in self._data:
            inputs, labels = map_inputs(_differentiable, batch[0]), _differentiable(batch[1])
            self._all_finite &= finite_examples(*tensors_in(inputs), labels).all()
            yield inputs, labels

    def expect(self, probes: int) -> None:
        """Say how many probes (or products with the Hessian) of each example will be taken at most, all told."""
        if self._report is not None:
            self._expected = float(probes * self.samples)

    def advance(self, probes: int) -> None:
        """Say that so many more probes (or products) were taken, each of one example."""
        self._done += probes
        if self._report is not None and self._expected and self._done:
            self._report.progress(self._done, self._expected)

    @cached_property
    def samples(self) -> int:
        """Number of this process's examples, for which the data is read once."""
        return sum(len(batch[1]) for batch in self._data)

    def outputs(self, inputs: Inputs) -> Tensor:
        """Compute the outputs of the model.

        Raises:
            ValueError: the outputs cannot be differentiated.
        """
        return outputs_of(self.model, inputs, self.calling)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of every example, shape (B,), for losses of positions their sum.

        The mean of a loss of positions, in the labels' shape, is over all labelled positions of all examples, see
        `lnsgd.measures.labels.example_losses`.

        Raises:
            ValueError: the loss is not per example or per label.
        """
        compute = example_losses if isinstance(self.loss, nn.CrossEntropyLoss | nn.NLLLoss) else labelled_losses
        found = compute(self.loss, outputs, labels)
        self._weight += found.weights.sum().item()
        return found.sums

    def mean(self, sums: Tensor, samples: int, over: Literal["losses", "examples"] = "losses") -> tuple[Tensor, int]:
        """Turn sums of a pass over this process's examples into means over those of all processes.

        Args:
            sums: Sums over this process's examples.
            samples: Number of this process's examples.
            over: Whether the mean is over the labels of the losses that were computed in the pass, or over examples.

        Returns:
            The means, and the number of examples of all processes. ``weight`` is what the sums were divided by.

        Raises:
            NonFiniteError: a sum is NaN or infinite.
            ValueError: no examples, or no labels.
        """
        weight = self._weight if over == "losses" else samples
        count = torch.tensor([samples, weight], dtype=torch.float64, device=sums.device)
        # Before it is summed over processes, so that all of them stop.
        sums = sums + torch.where(self._all_finite, 0.0, torch.nan)
        sums, count = self.share.reduce(sums), self.share.reduce(count)
        examples, self.weight = count.tolist()
        if not examples:
            raise ValueError("no examples to take the curvature on; the data is empty")
        if not sums.isfinite().all():
            raise NonFiniteError("the loss or its derivatives are not finite (NaN or infinite) on this data")
        if not self.weight:
            raise ValueError("no example has a label to take the loss of")
        return sums / self.weight, int(examples)


def _check_examples_apart(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, compat.batch_norm_base()) and module.running_mean is None:
            place = compat.plain_name(name) or "the model"
            raise ValueError(
                f"{place} ({type(module).__name__}) has no running statistics, so that in eval mode as "
                "well an example changes the outputs of the others; a mean over examples needs track_running_stats=True"
            )


def _differentiable(values: Tensor) -> Tensor:
    # Tensors made in inference mode cannot be differentiated through.
    return at_least_single(values.clone() if values.is_inference() else values)


def chunks(inputs: Inputs, *others: Tensor, at_most: int = _CHUNK) -> Iterator[tuple[Any, ...]]:
    """Split a batch into parts of which derivatives fit into memory; an empty batch has no parts."""
    size = min(_CHUNK, at_most)
    yield from zip(split_inputs(inputs, size), *(other.split(size) for other in others))


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode with gradients on, in full precision; on exit, restore everything.

    Derivatives are those of the function that the weights stand for, in at least single precision: autocast is off, and
    half-precision weights are float32, so that a `Problem` must be made within this context. Its inputs are those that
    the network sees, rounded if the network sees them rounded.

    Args:
        model: Any module.
    """
    device = next((p.device.type for p in model.parameters()), "cpu")
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluation_mode(model),
        full_precision(device),
        sdpa_kernel(SDPBackend.MATH),  # fused attention has no second derivatives
        TwiceDifferentiable(),
        missing_derivatives_named(model),
        single_precision_weights(model),
    ):
        yield
