"""Weights from files: read without running code, and named as a network names them."""

import hashlib
import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Names under which files keep a state dict beside other things.
_NESTED = ("state_dict", "model", "model_state_dict", "net")

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
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give a run's folder or a checkpoint")
    if path.suffix == ".safetensors":
        try:
            return Saved(load_file(path), {})
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged or no safetensors file ({_short(error)})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, error)) from error
    except Exception as error:  # torch raises what the damage leads to
        raise ValueError(f"{path} is damaged or no checkpoint ({_short(error)})") from error
    return _state_dict(path, content)


def _refusal(path: Path, error: Exception) -> str:
    if "GLOBAL" not in str(error) and "global" not in str(error) and "class" not in str(error):
        return f"{path} is damaged or no checkpoint ({_short(error)})"
    return (
        f"{path} holds more than tensors and asks for code, which is not run ({_short(error)}); save the state dict "
        "alone: torch.save(model.state_dict(), …)"
    )


def _short(error: Exception) -> str:
    """The cause, without torch's advice to trust the file."""
    text = " ".join(str(error).split())
    _, found, cause = text.partition("WeightsUnpickler error: ")
    return (cause if found else text).split(". ")[0].partition(" Please use ")[0].rstrip(".")[:160]


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


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes: the same for the same weights, in whatever file they are."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fitted(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, model: str) -> Fitted:
    """Weights as a network names them.

    Names in the file may have a prefix, such as ``module.`` or ``net.``: the one that lets most names match. What does
    not have it, such as the state of a metric, is left out. Without a prefix everything must match.

    Args:
        tensors: By the file's names.
        wanted: The network's ``state_dict()``.
        path: The file, for messages.
        model: What the network is called in messages.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the first few are named.
    """
    prefix = _prefix(tensors, wanted)
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(wrong.values()):
        parts = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in wrong.items() if names]
        raise ValueError(
            f"{path} does not fit {model}: of its {len(wanted)} tensors and the file's {len(found)}, "
            f"{', '.join(parts)}; say another model or its arguments with --model"
        )
    if not prefix:
        return Fitted(found, "")
    left = len(tensors) - len(found)
    note = f"names without their prefix {prefix!r}" + (f", {left} tensors without it left out" if left else "")
    return Fitted(found, note)


def _prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    votes: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                votes[".".join([*parts[:start], ""]) if start else ""] += 1
    return min(votes, key=lambda prefix: (-votes[prefix], len(prefix)), default="")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
