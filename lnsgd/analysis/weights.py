"""Weights from files: read without running code, and named as a network names them."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lnsgd.untrusted.checkpoint import load_checkpoint, load_safetensors

# Names under which files keep a state dict beside other things.
_NESTED = ("state_dict", "model", "model_state_dict", "net")

# Names that torch.compile, activation checkpointing and FSDP put into those of tensors; they mean nothing to a network.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")

# Of tensors that do not fit, so many are named.
_NAMED = 3


class Saved(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: Weights and buffers by the file's own names, on the CPU.
        record: What else it holds, such as ``epoch`` and ``global_step`` of a Lightning checkpoint.
    """

    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def number(self, *names: str) -> int | None:
        """The first of some entries of the record that is a whole number; ``None`` without."""
        found = (self.record.get(name) for name in names)
        return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)


class Fitted(NamedTuple):
    """Weights under a network's own names.

    Attributes:
        tensors: By name.
        note: What was done to the names; empty where nothing was.
    """

    tensors: dict[str, Tensor]
    note: str


def read(path: Path) -> Saved:
    """Reads a checkpoint: safetensors, or what ``torch.save`` has written. No code in it is run.

    A state dict may be the whole file, or an entry ``state_dict``, ``model``, ``model_state_dict`` or ``net`` of it.

    Raises:
        ValueError: there is no such file; it is damaged or no checkpoint; it holds objects that only code can make.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file of weights, such as {path / 'init.safetensors'}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give a run's folder or a checkpoint")
    if path.suffix == ".safetensors":
        return Saved(load_safetensors(path), {})
    return _state_dict(path, load_checkpoint(path))


def _state_dict(path: Path, content: Any) -> Saved:
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, no state dict; save model.state_dict()")
    nested = next((name for name in _NESTED if isinstance(content.get(name), Mapping)), None)
    tensors = content if nested is None else content[nested]
    found = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not found or (nested is None and len(found) < len(content)):
        listed = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise ValueError(f"{path} holds no state dict, by itself or as `state_dict` or `model`; it holds {listed}")
    record = {} if nested is None else {str(name): value for name, value in content.items() if name != nested}
    return Saved(found, record)


def fitted(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, model: str) -> Fitted:
    """Weights as a network names them.

    Names in the file may have a prefix, such as ``module.`` or ``net.``: the one that lets most names match. What does
    not have it, such as the state of a metric, is left out. Without a prefix everything must match. The network's names
    may have one too, as those of a LightningModule around the network of the file. Names that wrappers of torch put
    between, such as ``_orig_mod.`` of ``torch.compile``, do not count.

    Args:
        tensors: By the file's names.
        wanted: The network's ``state_dict()``.
        path: The file, for messages.
        model: What the network is called in messages.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the first few are named.
    """
    given = {_unwrapped(name): value for name, value in tensors.items()}
    prefix, added = _prefixes(given, wanted)
    found = {added + name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    if wrong := mismatch(found, wanted):
        raise ValueError(
            f"{path} does not fit {model}: of its {len(wanted)} tensors and the file's {len(found)}, {wrong}; "
            "say another model or its arguments with --model"
        )
    if added:
        return Fitted(found, f"names with the prefix {added!r} before them")
    if not prefix:
        return Fitted(found, "")
    left = len(tensors) - len(found)
    note = f"names without their prefix {prefix!r}" + (f", {left} tensors without it left out" if left else "")
    return Fitted(found, note)


def mismatch(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """How some tensors differ from those that are wanted, the first few named; empty where all fit.

    Example:
        >>> import torch
        >>> mismatch({"a": torch.zeros(2)}, {"a": torch.zeros(3), "b": torch.zeros(1)})
        '1 missing (b), 1 of another shape (a (2,) for (3,))'
    """
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return ", ".join(f"{len(names)} {kind} ({_listed(names)})" for kind, names in wrong.items() if names)


def _unwrapped(name: str) -> str:
    """A tensor's name without those of the wrappers that torch puts around modules, at any depth."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefixes(given: Collection[str], wanted: Collection[str]) -> tuple[str, str]:
    """What stands before a network's names in a file, and what before those of the file in the network."""
    if (prefix := _prefix(given, wanted)) is not None:
        return prefix, ""
    return "", _prefix(wanted, given) or ""


def _prefix(names: Iterable[str], within: Collection[str]) -> str | None:
    """What stands before most of the names of others that end as they do; ``None`` where none does."""
    votes: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in within:
                votes[".".join([*parts[:start], ""]) if start else ""] += 1
    return min(votes, key=lambda prefix: (-votes[prefix], len(prefix)), default=None)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
