"""Weights from files: read without running code, and named as a network names them."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from lnsgd import compat
from lnsgd.measuring import AVERAGED, TRAINED
from lnsgd.untrusted.checkpoint import (
    AsksForCodeError,
    load_checkpoint,
    load_safetensors,
    load_shards,
    load_without_objects,
)

# Names under which files keep a state dict beside other things.
_NESTED = ("state_dict", "model", "model_state_dict", "net")

# The ends of the names of an index of several files.
SHARD_INDICES = (".safetensors.index.json", ".bin.index.json")

# The name that DataParallel and DistributedDataParallel insert before those of the module that they wrap.
_PARALLEL = "module"

# The buffer of a batch normalization that files from before PyTorch 0.4.1 do not have. torch sets it to 0.
_COUNTER, _BESIDE_COUNTER = "num_batches_tracked", "running_mean"

# The ends of the names of parameters of the older weight normalization of torch, and of the present one.
_WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}

# Names under which files keep averages of the weights beside the weights: those of timm and torchvision.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict")

# Number of tensors that are named in a message about tensors that do not fit.
_NAMED = 3


class FileContent(NamedTuple):
    """The content of a file of weights.

    Attributes:
        weights: Weights and buffers by their names in the file, on the CPU: those that were trained, averages of them,
            or both, by what they are, see `lnsgd.measuring.Measurement`.
        record: Everything else in the file, such as ``epoch`` and ``global_step`` of a Lightning checkpoint.
        note: What in the file was not read; empty if all was.
    """

    weights: dict[str, dict[str, Tensor]]
    record: dict[str, Any]
    note: str = ""

    @property
    def trained(self) -> dict[str, Tensor]:
        """The weights that were trained, or else the averages, which are all that the file holds."""
        return self.weights.get(TRAINED) or next(iter(self.weights.values()))

    def number(self, *names: str) -> int | None:
        """Return the first of the named entries of the record that is a whole number; ``None`` if there is none."""
        found = (self.record.get(name) for name in names)
        return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)


class NamedWeights(NamedTuple):
    """Weights under the names that a network uses.

    Attributes:
        tensors: Weights and buffers by name.
        note: What was done to the names in the file; empty if nothing was.
    """

    tensors: dict[str, Tensor]
    note: str


def read_weights(path: Path) -> FileContent:
    """Read a checkpoint: safetensors, the index of several files, or what ``torch.save`` has written, without its code.

    Objects of other packages in it, such as the hyper-parameters of a Lightning module, are left out. A state dict may
    be the whole file, or its entry ``state_dict``, ``model``, ``model_state_dict`` or ``net``. In a checkpoint of
    Lightning's ``WeightAveraging``, ``state_dict`` has averages and ``current_model_state`` the weights that were
    trained; other files keep averages as ``state_dict_ema``, ``model_ema`` or ``ema_state_dict``.

    Raises:
        ValueError: there is no such file, it is damaged or not a checkpoint, or it holds objects that only code can
            make.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file of weights, such as {path / 'init.safetensors'}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give a run's folder or a checkpoint")
    if path.suffix == ".safetensors":
        return FileContent({TRAINED: load_safetensors(path)}, {})
    if path.name.endswith(SHARD_INDICES):
        return FileContent({TRAINED: load_shards(path)}, {})
    try:
        return _state_dict(path, load_checkpoint(path))
    except AsksForCodeError as refusal:
        try:
            content, left_out = load_without_objects(path)
        except ValueError:
            raise refusal from None
        if not isinstance(content, Mapping):  # a whole module, for example
            raise refusal from None
    found = _state_dict(path, content)
    numbers = {name: value for name, value in found.record.items() if isinstance(value, int | float)}
    names = ", ".join(left_out[:_NAMED]) + (", …" if len(left_out) > _NAMED else "")
    return FileContent(found.weights, numbers, f"weights only: objects of {names} in the file are not read")


def _state_dict(path: Path, content: Any) -> FileContent:
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    nested = next((name for name in _NESTED if isinstance(content.get(name), Mapping)), None)
    tensors = content if nested is None else content[nested]
    found = _tensors(tensors)
    if not found or (nested is None and len(found) < len(content)):
        listed = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise ValueError(f"{path} holds no state dict, by itself or as `state_dict` or `model`; it holds {listed}")
    record = {} if nested is None else {str(name): value for name, value in content.items() if name != nested}
    return FileContent(_which_weights(found, record), record)


def _which_weights(found: dict[str, Tensor], record: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Tell the state dict of a file, and others that it holds, apart by whether they are averages."""
    if isinstance(trained := record.get("current_model_state"), Mapping):
        return {AVERAGED: found, TRAINED: _tensors(trained)}
    averages = next((record[name] for name in _AVERAGES if isinstance(record.get(name), Mapping)), None)
    if averages is not None and _tensors(averages):
        return {AVERAGED: _tensors(averages), TRAINED: found}
    return {AVERAGED if _has_replaced(found, record) else TRAINED: found}


def _has_replaced(found: Mapping[str, Tensor], record: Mapping[str, Any]) -> bool:
    """Return whether the state dict has the averages of a ``StochasticWeightAveraging``, which saves them too."""
    callbacks = record.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, Mapping) else ():
        averages = state.get("average_model_state") if isinstance(state, Mapping) else None
        if isinstance(averages, Mapping) and state.get("n_averaged"):
            # Vectors may be buffers, which are not averaged, so the weight matrices and filters decide.
            large = [name for name, value in found.items() if value.is_floating_point() and value.ndim > 1]
            return bool(large) and all(name in averages and torch.equal(found[name], averages[name]) for name in large)
    return False


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def fit_names(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, model: str) -> NamedWeights:
    """Name weights as a network names them.

    Names in the file may have a prefix, such as ``module.`` or ``net.``; it is the prefix that lets most names match.
    Tensors without it, such as the state of a metric, are left out. Without a prefix everything must match. The
    network's names may have a prefix too, as a LightningModule has around the network of the file. Names that wrappers
    of torch insert, such as ``_orig_mod.`` of ``torch.compile``, are ignored, and so are the ``module.`` that
    ``DataParallel`` inserts around a part of a network (``features.module.0.weight``). Batch normalizations without
    ``num_batches_tracked`` get 0, as in ``load_state_dict`` of torch, and counters of shape (1,) and the parameters of
    the older weight normalization are converted.

    Args:
        tensors: Weights by their names in the file.
        wanted: The network's ``state_dict()``.
        path: The file, for messages.
        model: Name of the network's class, for messages.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the first few are named.
    """
    given = _renamed({compat.plain_name(name): value for name, value in tensors.items()}, wanted)
    found = _fitted(given, wanted)
    if wrong := mismatch(found.tensors, wanted):
        if (found_within := _fitted_within(given, wanted)) is None:
            raise ValueError(
                f"{path} does not fit {model}: of its {len(wanted)} tensors and the file's {len(found.tensors)}, "
                f"{wrong}; {_remedy(path)}"
            )
        found = found_within
    return found


def _renamed(given: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert what torch converts when it loads: the older weight normalization, and numbers of shape (1,)."""
    found = {}
    for name, value in given.items():
        for old, new in _WEIGHT_NORM.items():
            if name.endswith(old) and any(other.endswith(new) for other in wanted):
                name = name.removesuffix(old) + new
        found[name] = value[0] if name.endswith(_COUNTER) and value.shape == (1,) else value
    return found


def _remedy(path: Path) -> str:
    if shard := re.fullmatch(r"(.+)-\d+-of-\d+\.(\w+)", path.name):
        return f"it is one of several files, which are read by their index {shard[1]}.{shard[2]}.index.json"
    return "give another model or its arguments with --model"


def _fitted(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> NamedWeights:
    """Name weights as a network names them, up to a prefix, and add counters of batches that are missing."""
    prefix, added = _prefixes(given, wanted)
    found = {added + name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    notes = [f"names with the prefix {added!r} before them"] if added else []
    if prefix:
        left = len(given) - len(found)
        notes.append(
            f"names without their prefix {prefix!r}" + (f", {left} tensors without it left out" if left else "")
        )
    missing = [name for name in wanted if name not in found and _is_counter(name, found)]
    if missing:
        found |= {name: torch.zeros_like(wanted[name], device="cpu") for name in missing}
        notes.append(f"{len(missing)} missing {_COUNTER} set to 0, as torch does")
    return NamedWeights(found, "; ".join(notes))


def _fitted_within(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> NamedWeights | None:
    """Name weights without the ``module`` in the middle of their names; ``None`` if they do not fit."""
    bare, names = {_bare(name): value for name, value in given.items()}, {_bare(name): name for name in wanted}
    if len(bare) < len(given) or len(names) < len(wanted):  # what is left is ambiguous
        return None
    found = _fitted(bare, {short: wanted[name] for short, name in names.items()})
    renamed = {names.get(short, short): value for short, value in found.tensors.items()}
    if mismatch(renamed, wanted):
        return None
    note = f"names without the {_PARALLEL!r} of DataParallel within them"
    return NamedWeights(renamed, "; ".join(filter(None, [note, found.note])))


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _PARALLEL)


def _is_counter(name: str, found: Collection[str]) -> bool:
    """Whether a name is that of the counter of a batch normalization whose statistics are there."""
    before, _, last = name.rpartition(".")
    return last == _COUNTER and (f"{before}.{_BESIDE_COUNTER}" if before else _BESIDE_COUNTER) in found


def mismatch(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Say how tensors differ from those that are wanted, and name the first few; return an empty text if all fit.

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


def _prefixes(given: Collection[str], wanted: Collection[str]) -> tuple[str, str]:
    """Return the prefix of the network's names in the file, and the prefix of the file's names in the network."""
    if (prefix := _prefix(given, wanted)) is not None:
        return prefix, ""
    return "", _prefix(wanted, given) or ""


def _prefix(names: Iterable[str], within: Collection[str]) -> str | None:
    """Return the prefix of most names that end in one of some other names; ``None`` if none does."""
    votes: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in within:
                votes[".".join([*parts[:start], ""]) if start else ""] += 1
    return min(votes, key=lambda prefix: (-votes[prefix], len(prefix)), default=None)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def unwrapped(module: nn.Module) -> nn.Module:
    """Return a module that is neither compiled nor spread over devices, at any depth.

    A compiled module takes no second derivatives and ignores hooks that are added later; the numbers are the same.

    Args:
        module: Any module; wrapped modules within it are replaced.
    """
    if isinstance(inner := compat.compiled_original(module), nn.Module):
        return unwrapped(inner)
    if isinstance(module, DataParallel | DistributedDataParallel):
        return unwrapped(module.module)
    children = compat.child_modules(module)
    for name, child in children.items():
        if child is not None:
            children[name] = unwrapped(child)
    compat.forget_compiled_call(module)
    return module
