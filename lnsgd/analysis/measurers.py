"""The measurers of an analysis: which ones are taken of a network, and their measurements."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from lnsgd import compat, measures
from lnsgd.analysis.checkpoints import Checkpoint, CheckpointSet
from lnsgd.analysis.context import measuring_context
from lnsgd.analysis.identity import described, first_batch, identity_of, key_of, name_of, source_of
from lnsgd.measures.forward import Inputs, OutputsFunction, call_network, first_examples, tensors_in
from lnsgd.measuring import (
    ActivationMeasurer,
    ActiveNeuronsMeasurer,
    ClassAssociationMeasurer,
    Context,
    DistanceFromInitMeasurer,
    HessianTraceMeasurer,
    ImplicitRegularizerMeasurer,
    Measurement,
    Measurer,
    PerformanceMeasurer,
    Source,
    Split,
    Subject,
    TopEigenvaluesMeasurer,
    WeightNormsMeasurer,
)
from lnsgd.records.journal import Journal
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.checkpoint import load_safetensors, save_safetensors

NO_INIT = "there are no initial weights θ₀; give their file with --init"

# Number of examples that a measurer is tried on before anything is measured.
_TRIED = 2


class Selection(NamedTuple):
    """The measurers that a user asks for.

    Attributes:
        asked: Measurers that must be taken.
        with_defaults: Whether the default measurers that can be taken are taken too.
    """

    asked: Sequence[Measurer]
    with_defaults: bool


class Taken(NamedTuple):
    """The results of one measurer for one network.

    Attributes:
        measurer: The measurer.
        replica: Number of the network.
        measurements: The numbers.
        tensors: Tensors to draw, by name; empty for most measurers.
    """

    measurer: Measurer
    replica: int
    measurements: Sequence[Measurement]
    tensors: Mapping[str, Tensor]


class UnfitInputsError(ValueError):
    """The network does not accept the inputs of the data."""


def default_measurers(splits: Sequence[Split] = ("train", "val")) -> list[Measurer]:
    """Return the measurers that are taken if none is asked for by name, each with its default settings.

    Args:
        splits: The splits that the data has.
    """
    return [
        PerformanceMeasurer(splits),
        ActiveNeuronsMeasurer(splits),
        ClassAssociationMeasurer(splits=splits),
        DistanceFromInitMeasurer(),
        WeightNormsMeasurer(),
        HessianTraceMeasurer(),
        TopEigenvaluesMeasurer(),
        ImplicitRegularizerMeasurer(),
    ]


def with_sources(measurers: Sequence[Measurer]) -> list[tuple[Measurer, Source]]:
    """Return measurers with their sources, as a context wants to know them."""
    return [(measurer, source_of(measurer)) for measurer in measurers]


def choose_measurers(
    checkpoints: CheckpointSet, selection: Selection, accelerator: str, console: Console
) -> list[Measurer]:
    """Return the measurers to take of a checkpoint set, after each was tried on a few examples.

    Prints which default measurers cannot be taken, how the names in files were read, and what the inputs are.

    Args:
        checkpoints: The checkpoint set.
        selection: The measurers that are asked for.
        accelerator: See `lnsgd.analysis.analyze`.
        console: Where it prints.

    Raises:
        ValueError: a measurer that is asked for cannot be taken.
    """
    inputs = [f"{checkpoints.name}: inputs are {checkpoints.preprocessing}"] if checkpoints.preprocessing else []
    for note in [*checkpoints.notes, *inputs]:
        console.print(note, style="dim", highlight=False, soft_wrap=True, markup=False)
    chosen: list[Measurer] = []
    with measuring_context(checkpoints, accelerator) as context:
        subject = _first_subject(checkpoints)
        defaults = default_measurers(available_splits(subject, context)) if selection.with_defaults else []
        asked_names = {name_of(measurer) for measurer in selection.asked}
        defaults = [measurer for measurer in defaults if name_of(measurer) not in asked_names]
        for measurer in [*defaults, *selection.asked]:
            reason = _reason_against(measurer, subject, context)
            if reason is None:
                chosen.append(measurer)
            elif any(measurer is asked for asked in selection.asked):
                raise ValueError(f"{name_of(measurer)} cannot be taken of {checkpoints.name}: {reason}")
            else:
                said = f"{name_of(measurer)} is left out: {reason}"
                console.print(said, style="dim", highlight=False, soft_wrap=True, markup=False)
    return chosen


def _first_subject(checkpoints: CheckpointSet) -> Subject:
    for checkpoint in checkpoints.checkpoints:
        checkpoints.load(checkpoint)
        if (subject := next(checkpoints.subjects(), None)) is not None:
            return subject
    raise ValueError(f"{checkpoints.name}: all networks in its checkpoints had diverged; nothing can be measured")


def available_splits(subject: Subject, context: Context, source: Source | None = None) -> tuple[Split, ...]:
    """Return which of the training and the validation split the data has; both if it has neither.

    A split that is missing is then reported by the measurer that needs it.

    Args:
        subject: Any network that is measured on the data.
        context: Where it is measured.
        source: Where the data comes from; by default the data of the subject.
    """
    splits: tuple[Split, ...] = ("train", "val")
    return tuple(split for split in splits if _is_available(split, subject, context, source or Source())) or splits


def _is_available(split: Split, subject: Subject, context: Context, source: Source) -> bool:
    try:
        source.batches(subject, split, None, context)
    except ValueError:
        return False
    return True


def _reason_against(measurer: Measurer, subject: Subject, context: Context) -> str | None:
    """Return why a measurer cannot be taken of a network, in one line; ``None`` if it can.

    Raises:
        UnfitInputsError: the network does not accept the inputs of the data.
    """
    try:
        _try(measurer, subject, context)
    except UnfitInputsError:
        raise
    except ValueError as error:
        return " ".join(str(error).split())
    return None


def _try(measurer: Measurer, subject: Subject, context: Context) -> None:
    """Try what a measurer needs: sites, data of its splits, a loss, initial weights."""
    module = subject.module
    if measurer.measured_splits and not compat.is_overridden("forward", module):
        raise ValueError(
            f"{type(module).__name__} has no `forward`; measures need one from inputs (B, …) to outputs (B, …)"
        )
    measurer.check(module)
    if measurer.needs_init and subject.init is None:
        raise ValueError(NO_INIT)
    for split in measurer.measured_splits:
        batch = first_batch(split, measurer.examples_of(split), subject, source_of(measurer), context)
        inputs, labels = first_examples(batch[0], _TRIED), batch[1][:_TRIED]
        outputs = source_of(measurer).outputs
        _try_outputs(module, inputs, outputs)
        if isinstance(measurer, ActivationMeasurer):
            _try_sites(measurer, module, inputs, labels, outputs)
        if hasattr(measurer, "loss"):
            measures.performance(module, subject.loss(measurer.loss), [(inputs, labels)], outputs=outputs)


def _try_sites(
    measurer: ActivationMeasurer, module: torch.nn.Module, inputs: Inputs, labels: Tensor, outputs: OutputsFunction
) -> None:
    """Try whether activation sites are called that can be counted."""
    sites = measures.activation_sites(module, measurer.layers, measurer.after or ())
    firings = measures.SiteFirings(sites, num_classes=1)
    with torch.no_grad(), measures.evaluation_mode(module), firings.observing():
        firings.count(lambda few: call_network(module, few, outputs), inputs, labels)
    firings.found()


def _try_outputs(module: torch.nn.Module, inputs: Inputs, outputs: OutputsFunction) -> None:
    with torch.no_grad(), measures.evaluation_mode(module):
        try:
            call_network(module, inputs, outputs)
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            kind = type(getattr(module, "net", module)).__name__
            cause = " ".join(str(error).split())[:200]
            shapes = ", ".join(str(tuple(tensor.shape[1:])) for tensor in tensors_in(inputs))
            raise UnfitInputsError(
                f"{kind} does not take the data's inputs of shape {shapes} an example ({cause}); give other --data or "
                "another --model"
            ) from error


class ResumableMeasuring:
    """Measures the checkpoints of a set; what the journal has is not measured again.

    A measurement is identified by the hash of the weights, the structure of the network, `identity_of` its measurer,
    and the version of lnsgd.

    Args:
        checkpoints: The checkpoint set.
        measurers: The measurers to take of each network.
        context: Where the networks are measured.
        journal: What was measured before.
        folder: Folder of the analysis, for tensors to be drawn; ``None`` to keep none.
    """

    def __init__(
        self,
        checkpoints: CheckpointSet,
        measurers: Sequence[Measurer],
        context: Context,
        journal: Journal,
        folder: Path | None,
    ) -> None:
        self._checkpoints = checkpoints
        self._measurers = measurers
        self._context = context
        self._journal = journal
        self._folder = folder
        self._template = described(checkpoints.template)
        self._identities: dict[int, list[dict[str, Any]]] = {}

    def measure(self, checkpoint: Checkpoint) -> Iterator[Taken]:
        """Take every measurer of every network in a checkpoint; replicas that had diverged are left out.

        Raises:
            ValueError: a measurer cannot be taken.
        """
        self._checkpoints.load(checkpoint)
        for subject in self._checkpoints.subjects():
            for measurer, identity in zip(self._measurers, self._identities_for(subject)):
                key = key_of(checkpoint.digest, subject.replica, self._template, identity)
                yield self._take(measurer, subject, key)

    def _identities_for(self, subject: Subject) -> list[dict[str, Any]]:
        if subject.replica not in self._identities:
            precision, digest = self._checkpoints.precision, self._checkpoints.initial_weights.digest
            self._identities[subject.replica] = [
                identity_of(measurer, subject, self._context, precision, digest) for measurer in self._measurers
            ]
        return self._identities[subject.replica]

    def _take(self, measurer: Measurer, subject: Subject, key: str) -> Taken:
        source, context = source_of(measurer), self._context
        if not measurer.is_drawn:
            rows = self._journal.once(key, lambda: measurer.take(subject, source, context))
            return Taken(measurer, subject.replica, rows, {})
        kept = None if self._folder is None else self._folder / "spectra" / f"{key}.safetensors"
        known = self._journal.get(key)
        if known is not None and kept is not None and kept.exists():
            return Taken(measurer, subject.replica, known, load_safetensors(kept))
        rows = measurer.take(subject, source, context)
        tensors = measurer.take_tensors(subject, source, context)
        if kept is not None:
            with whole_file(kept) as part:
                save_safetensors(tensors, part)
        self._journal.put(key, rows)
        return Taken(measurer, subject.replica, rows, tensors)
