"""Identities of measurements: the weights, the network, the data, and the measurer with its settings."""

import hashlib
import json
from typing import Any

from torch import Tensor, nn

from lnsgd import __version__
from lnsgd.measures.forward import Inputs, tensors_in
from lnsgd.measuring import Context, Measurer, Source, Split, Subject
from lnsgd.untrusted.checkpoint import content_hash

# Settings that change no measured number: where data lies, the size of the batches it is read in, what is drawn.
_NOT_SETTINGS = {"training", "histograms", "eval_batch_size", "data_dir"}

# Attributes that are objects with settings of their own.
_PARTS = ("loss", "label_noise", "augmentation")


def name_of(measurer: Measurer) -> str:
    """Return the name of a measurer's class for users, who know a measurer of lnsgd by the name of its callback."""
    return type(measurer).__name__.removesuffix("Measurer")


def source_of(measurer: Measurer) -> Source:
    """Return where a measurer gets its data: a callback brings a source of its own, which may be the user's data."""
    return getattr(measurer, "source", None) or Source()


def first_batch(
    split: Split, examples: int | None, subject: Subject, source: Source, context: Context
) -> tuple[Inputs, Tensor]:
    """Return inputs and labels of the first batch of a split."""
    return next(iter(source.batches(subject, split, examples, context)))


def identity_of(
    measurer: Measurer,
    subject: Subject,
    context: Context,
    precision: Any,
    init_digest: str,
    source: Source | None = None,
) -> dict[str, Any]:
    """Return everything but the weights that decides the numbers of a measurer: its settings, the data, perhaps θ₀.

    The data is known by its settings and by a hash of the first batch of each split.

    Args:
        measurer: The measurer.
        subject: Any network that is measured on this data.
        context: Where it is measured.
        precision: Name of the precision.
        init_digest: Hash of the initial weights.
        source: Where the data comes from; by default `source_of` the measurer.

    Raises:
        ValueError: a setting that cannot be part of the identity.
    """
    _check_settings(measurer)
    source = source or source_of(measurer)
    settings = described(measurer)
    if type(measurer).__module__.startswith("lnsgd."):  # a callback of lnsgd and its measurer are one measure
        settings["class"] = f"lnsgd.{name_of(measurer)}"
    found = {
        "measure": {**settings, "source": source.identity},
        "init": init_digest if measurer.needs_init else "",
        "precision": str(precision),
    }
    firsts: dict[str, Tensor] = {}
    for split in measurer.measured_splits:
        inputs, labels = first_batch(split, measurer.examples_of(split), subject, source, context)
        firsts |= {f"{split}/inputs{place or ''}": tensor for place, tensor in enumerate(tensors_in(inputs))}
        firsts[f"{split}/labels"] = labels
    if firsts:
        found |= {"data": described(subject.data), "batches": content_hash(firsts)}
    return found


def _check_settings(measurer: Measurer) -> None:
    """Refuse a setting that would not be part of the identity: other values of it would find the same numbers."""
    for name, value in vars(measurer).items():
        known = name.startswith("_") or name == "source" or name in _NOT_SETTINGS or name in _PARTS
        if not known and not _is_plain(value):
            raise ValueError(
                f"{name_of(measurer)}: the setting {name} is a {type(value).__name__}, which does not identify a "
                "measurement; make it a number, a text, or a list or dict of them, or begin its name with _"
            )


def key_of(*parts: Any) -> str:
    """Return the key of a measurement: a hash of plain values that identify it, and of the version of lnsgd."""
    return hashlib.sha256(json.dumps([*parts, __version__], sort_keys=True).encode()).hexdigest()


def described(what: Any) -> dict[str, Any]:
    """Describe an object by its class and its plain settings, in the same words in every process.

    Settings are public attributes that are numbers, texts, or lists or dictionaries of them. A module is also
    described by its structure and the settings of all modules within it.

    Example:
        >>> from lnsgd.losses import HingeLoss
        >>> described(HingeLoss(beta=2.0))
        {'class': 'lnsgd.losses.HingeLoss', 'beta': 2.0}
    """
    kind = what if hasattr(what, "__qualname__") else type(what)
    settings: dict[str, Any] = {"class": f"{kind.__module__}.{kind.__qualname__}", **_plain_settings(what)}
    if isinstance(what, nn.Module):
        settings |= {"is": repr(what), "modules": [_plain_settings(module) for module in what.modules()]}
    for part in _PARTS:
        if (inner := vars(what).get(part) if hasattr(what, "__dict__") else None) is not None:
            settings[part] = described(inner)
    return settings


def _plain_settings(what: Any) -> dict[str, Any]:
    public = {key: value for key, value in getattr(what, "__dict__", {}).items() if not key.startswith("_")}
    return {key: public[key] for key in sorted(public) if key not in _NOT_SETTINGS and _is_plain(public[key])}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    return value is None or isinstance(value, bool | int | float | str)
