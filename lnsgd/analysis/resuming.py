"""Measures the checkpoints of a source, but for what was measured before."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning import Trainer
from torch import Tensor

from lnsgd import __version__
from lnsgd.analysis.bench import other_weights
from lnsgd.analysis.described import described
from lnsgd.analysis.journal import Journal
from lnsgd.analysis.measuring import Measure, Taken, first_batches, give_init, take
from lnsgd.analysis.source import Checkpoint, Source
from lnsgd.callbacks import DistanceFromInit, SpectralDensity
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject
from lnsgd.untrusted.checkpoint import content_hash, load_safetensors, save_safetensors
from lnsgd.writing import whole_file


class Found(NamedTuple):
    """A measure of one network."""

    replica: int
    measure: Measure
    taken: Taken


class Resuming:
    """Measures checkpoints; what the journal has is not measured again.

    A measurement is known by the hash of the weights, the network's structure, the data (its settings and a hash of the
    first batch of each split that is looked at), the settings of the measure, and the version of this package.

    Args:
        source: Whose checkpoints.
        measures: What is taken of each.
        trainer: With the source attached.
        journal: Of what was measured.
        folder: For tensors to be drawn; ``None`` to keep none.
    """

    def __init__(
        self, source: Source, measures: Sequence[Measure], trainer: Trainer, journal: Journal, folder: Path | None
    ) -> None:
        self._source = source
        self._measures = measures
        self._trainer = trainer
        self._journal = journal
        self._folder = folder
        self._init = give_init(measures, source)
        self._network = described(source.structure)
        self._described: dict[int, list[dict[str, Any]]] = {}

    def of(self, checkpoint: Checkpoint) -> Iterator[Found]:
        """Every measure of every network in a checkpoint; replicas that had diverged have none.

        Raises:
            ValueError: a measure cannot be taken.
        """
        self._source.load(checkpoint)
        for subject in self._source.subjects(self._trainer):
            other_weights(self._trainer)
            for measure, settings in zip(self._measures, self._settings(subject)):
                key = key_of(checkpoint.digest, subject.replica, self._network, settings)
                yield Found(subject.replica, measure, self._once(key, measure, subject))

    def _settings(self, subject: Subject) -> list[dict[str, Any]]:
        """What says which number each measure gives of some weights."""
        if subject.replica not in self._described:
            precision = self._source.precision
            self._described[subject.replica] = [
                identity(measure, self._trainer, subject, precision, self._init) for measure in self._measures
            ]
        return self._described[subject.replica]

    def _once(self, key: str, measure: Measure, subject: Subject) -> Taken:
        kept = None if self._folder is None else self._folder / "spectra" / f"{key}.safetensors"
        drawn = isinstance(measure, SpectralDensity)
        known: list[Measurement] | None = self._journal.get(key)
        if known is not None and not (drawn and (kept is None or not kept.exists())):
            tensors: dict[str, Tensor] = load_safetensors(kept) if drawn and kept is not None else {}
            return Taken(known, tensors)
        taken = take(measure, self._trainer, subject)
        if drawn and kept is not None:
            with whole_file(kept) as part:
                save_safetensors(taken.tensors, part)
        self._journal.put(key, taken.rows)
        return taken


def identity(measure: Measure, trainer: Trainer, subject: Subject, precision: Any, init: str) -> dict[str, Any]:
    """What says which number a measure gives of some weights: its settings, the data, and θ₀ where it counts.

    Args:
        measure: What is taken.
        trainer: With the source attached.
        subject: Any network that is measured on this data.
        precision: The Trainer's.
        init: Digest of θ₀.
    """
    found = {
        "measure": described(measure),
        "init": init if isinstance(measure, DistanceFromInit) else "",
        "precision": str(precision),
    }
    if firsts := first_batches(measure, trainer, subject):
        found |= {"data": described(subject.data), "batches": content_hash(firsts)}
    return found


def key_of(*parts: Any) -> str:
    """The key of a measurement in a `Journal`: a hash of plain values that say which it is, and of the version."""
    return hashlib.sha256(json.dumps([*parts, __version__], sort_keys=True).encode()).hexdigest()


def once(journal: Journal, key: str, take: Callable[[], Sequence[Measurement]]) -> Sequence[Measurement]:
    """What a journal has under a key; where it has nothing, what is taken now, and kept."""
    if (known := journal.get(key)) is not None:
        return known
    journal.put(key, taken := take())
    return taken
