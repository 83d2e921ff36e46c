"""Checkpoints and state dicts of anyone: whole, without code, and no larger in memory than on disk."""

import hashlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lnsgd.untrusted.files import UnreadableError, size_of
from lnsgd.untrusted.pickles import CallsError, check_pickle

# What is said of a file that cannot be read.
_REMEDY = "give a file that torch.save or safetensors wrote, and that is whole"

# What files of torch.save begin with, and pickles; what a zip archive ends with.
_ZIP, _PICKLE, _ZIP_END = b"PK\x03\x04", b"\x80", b"PK\x05\x06"
_ZIP_END_SIZE = 22

# Of the metadata in a safetensors file.
_CHECKSUM = "sha256"

# The pickle in a file holds names, shapes and settings, not weights.
_MOST_PICKLED = 64 << 20

# Before version 1.6, torch.save wrote so many pickles one after the other, and then the weights.
_LEGACY_PICKLES = 5

# Containers and plain values in a file, each as often as it is referred to, and how deep they may be nested.
_MOST_VALUES, _MOST_DEPTH = 1_000_000, 100

# All that a file of tensors and plain values calls. Of the rest that torch allows some fill the memory when called
# with a large number, such as bytearray and FloatTensor.
_CALLABLE = (
    "collections.OrderedDict",
    "collections.Counter",
    "collections.defaultdict",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "_codecs.encode",
    "builtins.set",
    "__builtin__.set",
    "builtins.complex",
    "__builtin__.complex",
)


def load_checkpoint(path: Path) -> Any:
    """What ``torch.save`` has written, on the CPU. No code in it is run.

    Torch itself reads past flipped bits and unpacks whatever an archive holds. Here an archive is uncompressed, its
    checksums are right, it calls nothing but what makes tensors, and no tensor is larger than what the file has of it.

    Raises:
        ValueError: there is no such file; it is damaged, no checkpoint, or asks for code.
    """
    try:
        size = size_of(path)
        _check(path, size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles of another origin, which are refused in one line anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_content(content, size)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; give a run's folder or a checkpoint") from None
    except CallsError as error:
        raise ValueError(_asks_for_code(path, str(error))) from error
    except pickle.UnpicklingError as error:
        code = any(word in str(error) for word in ("GLOBAL", "global", "class"))
        raise ValueError(_asks_for_code(path, _short(error)) if code else _damaged(path, _short(error))) from error
    except Exception as error:  # torch raises what the damage leads to
        raise ValueError(_damaged(path, _short(error))) from error
    return content


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, on the CPU.

    The format has no checksum. Files of `save_safetensors` have one, which is looked at; those of others may lack it.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    try:
        size_of(path)
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get(_CHECKSUM)
        if expected is not None and expected != content_hash(tensors):
            raise UnreadableError("its checksum is wrong")
        return tensors
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; give a run's folder or a checkpoint") from None
    except Exception as error:  # of the library, and of torch for types and shapes that it does not have
        raise ValueError(f"{path} is damaged or no safetensors file ({_short(error)}); {_REMEDY}") from error


def save_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors with a checksum of them, which `load_safetensors` looks at."""
    save_file(dict(tensors), path, {_CHECKSUM: content_hash(tensors)})


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes: the same for the same weights, in whatever file they are."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _asks_for_code(path: Path, reason: str) -> str:
    return (
        f"{path} holds more than tensors and asks for code, which is not run ({reason}); save the state dict "
        "alone: torch.save(model.state_dict(), …)"
    )


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged or no checkpoint ({reason}); {_REMEDY}"


def _short(error: Exception) -> str:
    """The cause, without torch's advice to trust the file."""
    text = " ".join(str(error).split()) or type(error).__name__
    _, found, cause = text.partition("WeightsUnpickler error: ")
    said = (cause if found else text).split(". ")[0]
    for advice in (" Please use ", " Check the documentation"):
        said = said.partition(advice)[0]
    return said.rstrip(".")[:160]


def _check(path: Path, size: int) -> None:
    """Raises UnreadableError, or what a damaged archive leads to, where a file must not be given to torch."""
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
        if not start:
            raise UnreadableError("it is empty")
        if start == _ZIP:
            _check_archive(path, size)
        elif start.startswith(_PICKLE):
            file.seek(0)
            for number in range(_LEGACY_PICKLES):
                check_pickle(file, _CALLABLE)
                if number == 0 and file.tell() == size:
                    raise UnreadableError("a pickle that torch.save did not write, or that is cut off")
        else:
            raise UnreadableError("torch.save did not write it")


def _check_archive(path: Path, size: int) -> None:
    with path.open("rb") as file:
        file.seek(max(0, size - _ZIP_END_SIZE))
        end = file.read()
    # With anything after its end, two readers may see two archives in one file.
    if not end.startswith(_ZIP_END):
        raise UnreadableError("it is cut off")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or len({entry.filename for entry in entries}) != len(entries):
            raise UnreadableError("a zip archive that torch.save did not write")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UnreadableError("it is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > size or pickles[0].file_size > _MOST_PICKLED:
            raise UnreadableError("it says that it is larger than it is")
        if (broken := archive.testzip()) is not None:
            raise UnreadableError(f"the checksum of {broken!r:.80} is wrong")
        check_pickle(io.BytesIO(archive.read(pickles[0])), _CALLABLE)


def _check_content(content: Any, size: int) -> None:
    """Raises UnreadableError where a file is small, and what it holds is not."""
    storages: set[int] = set()
    held = 0
    for value in _values(content):
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.device.type != "cpu":
            raise UnreadableError(f"it has a tensor of the kind {value.layout} on {value.device}")
        storage = value.untyped_storage()
        if value.numel() * value.element_size() > storage.nbytes():
            raise UnreadableError(f"it has a tensor {tuple(value.shape)} that is larger than what is saved of it")
        if storage.data_ptr() not in storages:
            storages.add(storage.data_ptr())
            held += storage.nbytes()
        if held > size:
            raise UnreadableError(f"it has a tensor {tuple(value.shape)}, and only {size:,} bytes")


def _values(content: Any) -> Iterator[Any]:
    """All values, each as often as it is referred to."""
    below = [(content, 0)]
    number = 0
    while below:
        value, depth = below.pop()
        number += 1
        if number > _MOST_VALUES or depth > _MOST_DEPTH:
            raise UnreadableError("its values refer to each other without end")
        yield value
        if isinstance(value, dict):
            below += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            below += [(part, depth + 1) for part in value]
