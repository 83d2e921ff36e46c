"""Takes measures of networks: which can be taken, and one of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from lnsgd import measures
from lnsgd.analysis.source import Source
from lnsgd.callbacks import (
    ActiveNeurons,
    ClassAssociation,
    DistanceFromInit,
    HessianTrace,
    ImplicitRegularizer,
    Performance,
    SpectralDensity,
    TopEigenvalues,
    WeightNorms,
)
from lnsgd.callbacks.activations import ActivationCallback
from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.callbacks.measurement_data import DataSource, Split
from lnsgd.callbacks.measurements import Measurement
from lnsgd.callbacks.per_example_loss import per_example_loss
from lnsgd.modules.replicated import Subject

# Anything that measures one network: all measuring callbacks, and the one that draws a spectrum.
Measure = MeasureCallback | SpectralDensity

# Why a distance from them is not measured.
NO_INIT = "there are no initial weights θ₀; give their file with --init"

# Examples that a model is tried on before anything is measured.
_TRIED = 2


class Taken(NamedTuple):
    """What a measure says of one network.

    Attributes:
        rows: Numbers.
        tensors: What is drawn, by name; nothing for most measures.
    """

    rows: list[Measurement]
    tensors: dict[str, Tensor]


class Refusal(NamedTuple):
    """A measure that is left out, and why."""

    measure: Callback
    why: str


def default_measures(splits: Sequence[Split] = ("train", "val")) -> list[Measure]:
    """What is measured where nothing is asked for by name, each with its own defaults.

    Args:
        splits: Those of the data that are there.
    """
    return [
        Performance(splits),
        ActiveNeurons(splits),
        ClassAssociation(splits=splits),
        DistanceFromInit(),
        WeightNorms(),
        HessianTrace(),
        TopEigenvalues(),
        ImplicitRegularizer(),
    ]


def give_init(chosen: Sequence[Measure], source: Source) -> str:
    """Tells the measures that need it what θ₀ is; gives its digest, empty without one."""
    found = source.initial_weights()
    init, digest = found or (None, "")
    for measure in chosen:
        if isinstance(measure, DistanceFromInit):
            measure.load_state_dict({"measured_at": None, "init": init})
    return digest


def available_splits(trainer: Trainer, subject: Subject) -> tuple[Split, ...]:
    """Which of the training and the validation split the data has; at least one, whose absence then is refused."""
    splits: tuple[Split, ...] = ("train", "val")
    return tuple(split for split in splits if _has(trainer, subject, split)) or splits


def _has(trainer: Trainer, subject: Subject, split: Split) -> bool:
    try:
        DataSource().batches(trainer, subject, split, None)
    except ValueError:
        return False
    return True


def refusals(chosen: Sequence[Measure], trainer: Trainer, source: Source, subject: Subject) -> list[Refusal]:
    """Measures that cannot be taken of a network, each with the reason.

    Raises:
        ValueError: the network does not take the data's inputs.
    """
    found = []
    for measure in chosen:
        try:
            _try(measure, trainer, source, subject)
        except UnfitInputsError:
            raise
        except ValueError as error:
            found.append(Refusal(measure, " ".join(str(error).split())))
    return found


class UnfitInputsError(ValueError):
    """The network does not take the data's inputs."""


def _try(measure: Measure, trainer: Trainer, source: Source, subject: Subject) -> None:
    """What a measure needs: sites, data of its splits, a loss, θ₀."""
    measure.setup(trainer, source.module, "validate")
    if isinstance(measure, DistanceFromInit) and source.init is None:
        raise ValueError(NO_INIT)
    for split in splits_of(measure):
        inputs, labels = (tensor[:_TRIED] for tensor in _first_batch(measure, trainer, subject, split))
        _try_outputs(subject, inputs)
        if hasattr(measure, "loss"):
            measures.performance(subject.module, per_example_loss(measure.loss, subject.module), [(inputs, labels)])


def _try_outputs(subject: Subject, inputs: Tensor) -> None:
    with torch.no_grad(), measures.evaluation_mode(subject.module):
        try:
            subject.module(inputs)
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            net = type(getattr(subject.module, "net", subject.module)).__name__
            cause = " ".join(str(error).split())[:200]
            raise UnfitInputsError(
                f"{net} does not take the data's inputs of shape {tuple(inputs.shape[1:])} an example ({cause}); give "
                "other --data or another --model"
            ) from error


def splits_of(measure: Measure) -> Sequence[Split]:
    """On which splits a measure looks; none where it looks at weights only."""
    if not hasattr(measure, "source"):
        return []
    return getattr(measure, "splits", None) or [measure.split]  # type: ignore[union-attr]


def first_batches(measure: Measure, trainer: Trainer, subject: Subject) -> dict[str, Tensor]:
    """Inputs and labels of the first batch of each split that a measure looks at."""
    found: dict[str, Tensor] = {}
    for split in splits_of(measure):
        inputs, labels = _first_batch(measure, trainer, subject, split)
        found |= {f"{split}/inputs": inputs, f"{split}/labels": labels}
    return found


def _first_batch(measure: Any, trainer: Trainer, subject: Subject, split: Split) -> tuple[Tensor, Tensor]:
    examples = measure.examples_of(split) if isinstance(measure, ActivationCallback) else measure.examples
    return next(iter(measure.source.batches(trainer, subject, split, examples)))


def take(measure: Measure, trainer: Trainer, subject: Subject) -> Taken:
    """A measure of one network.

    Raises:
        ValueError: it cannot be taken.
    """
    if isinstance(measure, MeasureCallback):
        return Taken(measure.measure(trainer, subject), {})
    return _spectrum(measure, trainer, subject)


def _spectrum(measure: SpectralDensity, trainer: Trainer, subject: Subject) -> Taken:
    """Extreme nodes and the trace that the quadrature gives, exact up to probes; nodes and weights to draw."""
    found = measure.spectrum(trainer, subject)
    names = ("spectrum_smallest", "spectrum_largest", "spectrum_trace")
    if found is None:
        return Taken([Measurement(name, measure.split, "", float("nan")) for name in names], {})
    density, top = found
    mean = density.integral(lambda t: t)
    low, high = density.range
    rows = [
        Measurement(names[0], measure.split, "", low),
        Measurement(names[1], measure.split, "", high),
        Measurement(
            names[2], measure.split, "", density.parameters * mean.value, density.parameters * mean.standard_error
        ),
    ]
    tensors = {
        "nodes": density.nodes,
        "weights": density.weights,
        "of": torch.tensor([density.parameters, density.samples]),
    }
    return Taken(rows, tensors if top is None else {**tensors, "top": top})
