"""Read checkpoints and state dicts that must be intact, without code, and not larger in memory than on disk."""

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lnsgd.untrusted.files import UnreadableError, size_of
from lnsgd.untrusted.pickles import CallsError, check_pickle
from lnsgd.untrusted.texts import load_json

# The remedy for a file that cannot be read.
_REMEDY = "give a file that torch.save or safetensors wrote, and that is intact"

# The first bytes of files of torch.save and of pickles; the first bytes of the end of a zip archive.
_ZIP, _PICKLE, _ZIP_END = b"PK\x03\x04", b"\x80", b"PK\x05\x06"
_ZIP_END_SIZE = 22

# Key in the metadata of a safetensors file.
_CHECKSUM = "sha256"

# The largest pickle in a file; it holds names, shapes and settings, not weights.
_MAX_PICKLE = 64 << 20

# Number of pickles that torch.save wrote before the weights until version 1.6.
_LEGACY_PICKLES = 5

# The most containers and plain values of a file, counted at each reference, and the deepest nesting.
_MAX_VALUES, _MAX_DEPTH = 1_000_000, 100

# All that a file of tensors and plain values may call. Some of the other names that torch allows, such as bytearray and
# FloatTensor, fill the memory when called with a large number.
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


class AsksForCodeError(ValueError):
    """A file holds objects that only code could make; the message is one line that names it."""


class _OtherFormatError(UnreadableError):
    """A file is of another format, which the message names with the remedy."""


def load_checkpoint(path: Path, without_weights: bool = False) -> Any:
    """Load a file of ``torch.save`` to the CPU, without executing code from it.

    Torch itself ignores flipped bits and unpacks whatever an archive holds. Here an archive must be uncompressed, its
    checksums must be right, it may only call what makes tensors, and no tensor may be larger than its part of the file.

    Args:
        path: The file.
        without_weights: Leave the values of tensors in the file, which takes no time and does not find damage in them.

    Raises:
        ValueError: The file does not exist, is damaged or not a checkpoint.
        AsksForCodeError: It asks for code.
    """
    try:
        size = size_of(path)
        in_archive = _check(path, size, checksums=not without_weights)
        lazily = True if without_weights and in_archive is not None else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of another origin, which are refused in one line anyway
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
        _check_content(content, size)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; give a run's folder or a checkpoint") from None
    except CallsError as error:
        raise AsksForCodeError(_code_message(path, str(error))) from error
    except _OtherFormatError as error:
        raise ValueError(f"{path} is {error}") from error
    except pickle.UnpicklingError as error:
        code = any(word in str(error) for word in ("GLOBAL", "global", "class"))
        if code:
            raise AsksForCodeError(_code_message(path, _shorten(error))) from error
        raise ValueError(_damage_message(path, _shorten(error))) from error
    except Exception as error:  # torch raises various errors for damaged files
        raise ValueError(_damage_message(path, _shorten(error))) from error
    return content


def load_without_objects(path: Path) -> tuple[Any, list[str]]:
    """Load what `load_checkpoint` loads of a file that also holds objects of other packages, such as hyper-parameters.

    Such an object is replaced by one that holds nothing; its class is neither imported nor called. Names of Python
    itself and of functions of torch are refused.

    Args:
        path: The file.

    Returns:
        The content, and the names of the classes whose objects were replaced.

    Raises:
        ValueError: As `load_checkpoint`.
    """
    try:
        size = size_of(path)
        replaced = _check(path, size, is_replaced=_is_replaced)
        if replaced is None:
            raise UnreadableError("torch.save before version 1.6 wrote it, with objects of other packages")
        known = {f"builtins.{name}" for name in _PLAIN_TYPES} | replaced  # torch knows __builtin__.long by another name
        stand_ins = torch.serialization.safe_globals([(_Unread, name) for name in sorted(known)])
        with warnings.catch_warnings(), stand_ins:
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_content(content, size)
    except CallsError as error:
        raise ValueError(_code_message(path, str(error))) from error
    except Exception as error:  # as in `load_checkpoint`
        raise ValueError(_damage_message(path, _shorten(error))) from error
    return content, sorted(replaced)


class _Unread:
    """Stands for an object that is not made: it takes everything and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Unread":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


def load_shards(index: Path) -> dict[str, Tensor]:
    """Load the tensors of several files that an index lists.

    ``model.safetensors.index.json`` lists safetensors files, ``pytorch_model.bin.index.json`` files of ``torch.save``.

    Args:
        index: The index, an object whose ``weight_map`` has the file of each tensor; the files are beside it.

    Raises:
        ValueError: A file is missing or damaged, or has other tensors than the index says.
    """
    is_pickled = index.name.endswith(".bin.index.json")
    end = ".bin" if is_pickled else ".safetensors"
    try:
        content = load_json(index)
        files = content["weight_map"]
        if not isinstance(files, dict) or not files:
            raise UnreadableError("its weight_map is not an object with the file of each tensor")
        for name in set(files.values()):
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(end):
                raise UnreadableError(f"it names {name!r:.80}, which is not a {end.removeprefix('.')} file beside it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        kind = end.removeprefix(".")
        raise ValueError(f"{index} is not the index of {kind} files ({_shorten(error)}); {_REMEDY}") from error
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(files.values())):
        shard = index.with_name(name)
        found = load_checkpoint(shard) if is_pickled else load_safetensors(shard)
        if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
            raise ValueError(f"{shard} does not hold tensors by name alone; {_REMEDY}")
        listed = {tensor for tensor, file in files.items() if file == name}
        if wrong := sorted(map(str, listed ^ found.keys())):
            raise ValueError(
                f"{shard} does not have the tensors that {index.name} lists, such as {wrong[0]!r:.80}; download both "
                "again"
            )
        tensors |= found
    return tensors


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a safetensors file to the CPU.

    The format has no checksum. Files of `save_safetensors` have one, which is checked; other files may lack it.

    Raises:
        ValueError: The file does not exist, or is damaged.
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
        raise ValueError(f"{path} does not exist; give a run's folder or a checkpoint") from None
    except Exception as error:  # of safetensors, and of torch for types and shapes that it does not support
        raise ValueError(f"{path} is damaged or not a safetensors file ({_shorten(error)}); {_REMEDY}") from error


def save_safetensors(tensors: Mapping[str, Tensor], path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write tensors with a checksum, which `load_safetensors` checks.

    Args:
        tensors: Tensors by name.
        path: The file.
        about: Metadata of the file besides the checksum.
    """
    save_file(dict(tensors), path, {**(about or {}), _CHECKSUM: content_hash(tensors)})


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and bytes of tensors with SHA-256, independently of the format of their file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# Names of other packages; and modules whose names are never replaced, because torch could know them as functions.
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_OF_TORCH = ("torch.nn.modules.", "torch.optim.")
_PLAIN_TYPES = ("dict", "list", "tuple", "int", "float", "str", "bool", "object", "long", "unicode", "defaultdict")
_NEVER_REPLACED = (
    *("torch", "builtins", "__builtin__", "collections", "_codecs", "codecs", "copyreg", "operator", "functools"),
    *("importlib", "runpy", "pickle", "marshal", "types", "io", "os", "posix", "nt", "sys", "subprocess", "shutil"),
    *("socket", "ctypes"),
)


def _is_replaced(name: str) -> bool:
    """Whether a name in a pickle is replaced: those of other packages, of layers and optimizers, and of plain types."""
    module, _, last = name.rpartition(".")
    if module in ("builtins", "__builtin__", "collections"):
        return last in _PLAIN_TYPES
    known = name.partition(".")[0] in _NEVER_REPLACED and not name.startswith(_OF_TORCH)
    return bool(_NAME.fullmatch(name)) and not known


def _code_message(path: Path, reason: str) -> str:
    return (
        f"{path} holds more than tensors and asks for code, which is not executed ({reason}); save the state "
        "dict alone: torch.save(model.state_dict(), …)"
    )


def _damage_message(path: Path, reason: str) -> str:
    return f"{path} is damaged or not a checkpoint ({reason}); {_REMEDY}"


def _shorten(error: Exception) -> str:
    """Shorten an error to its cause, without torch's advice to trust the file."""
    text = " ".join(str(error).split()) or type(error).__name__
    _, found, cause = text.partition("WeightsUnpickler error: ")
    reason = (cause if found else text).split(". ")[0]
    for advice in (" Please use ", " Check the documentation"):
        reason = reason.partition(advice)[0]
    return reason.rstrip(".")[:160]


def _check(
    path: Path, size: int, checksums: bool = True, is_replaced: Callable[[str], bool] | None = None
) -> set[str] | None:
    """Raise UnreadableError, or an error of reading a damaged archive, if a file must not be passed to torch.

    Returns:
        The names in an archive that are replaced; ``None`` for a file that is not an archive, where none is.
    """
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
        if not start:
            raise UnreadableError("it is empty")
        if start == _ZIP:
            return _check_archive(path, size, checksums, is_replaced)
        elif start.startswith(_PICKLE):
            file.seek(0)
            for number in range(_LEGACY_PICKLES):
                check_pickle(file, _CALLABLE)
                if number == 0 and file.tell() == size:
                    raise UnreadableError("a pickle that torch.save did not write, or that is cut off")
        else:
            raise UnreadableError("torch.save did not write it")
    return None


def _check_archive(path: Path, size: int, checksums: bool, is_replaced: Callable[[str], bool] | None) -> set[str]:
    with path.open("rb") as file:
        file.seek(max(0, size - _ZIP_END_SIZE))
        end = file.read()
    # With anything after its end, two readers could see two different archives in one file.
    if not end.startswith(_ZIP_END):
        raise UnreadableError("it is cut off")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _check_format([entry.filename for entry in entries])
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or len({entry.filename for entry in entries}) != len(entries):
            raise UnreadableError("a zip archive that torch.save did not write")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UnreadableError("it is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > size or pickles[0].file_size > _MAX_PICKLE:
            raise UnreadableError("it claims to be larger than it is")
        if checksums and (broken := archive.testzip()) is not None:
            raise UnreadableError(f"the checksum of {broken!r:.80} is wrong")
        return check_pickle(io.BytesIO(archive.read(pickles[0])), _CALLABLE, is_replaced)


def _check_format(names: list[str]) -> None:
    """Raise _OtherFormatError for other archives that torch writes, which hold programs."""
    if any(name.endswith("/constants.pkl") for name in names):
        raise _OtherFormatError(
            "a TorchScript file (of torch.jit.save), whose code is not executed; save its weights alone: "
            "torch.save(torch.jit.load(…).state_dict(), …)"
        )
    if any(name.endswith("archive_format") for name in names):
        raise _OtherFormatError(
            "a program of torch.export, which is not executed; save its weights alone: "
            "torch.save(torch.export.load(…).state_dict, …)"
        )


def _check_content(content: Any, size: int) -> None:
    """Raise UnreadableError if a small file holds large content."""
    storages: set[int] = set()
    held = 0
    for value in _values(content):
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.device.type != "cpu":
            raise UnreadableError(f"it has a tensor of layout {value.layout} on {value.device}")
        storage = value.untyped_storage()
        if value.numel() * value.element_size() > storage.nbytes():
            raise UnreadableError(f"it has a tensor {tuple(value.shape)} that is larger than its saved values")
        if storage.data_ptr() not in storages:
            storages.add(storage.data_ptr())
            held += storage.nbytes()
        if held > size:
            raise UnreadableError(f"it has a tensor {tuple(value.shape)}, but only {size:,} bytes")


def _values(content: Any) -> Iterator[Any]:
    """Yield all values, each as often as it is referred to."""
    stack = [(content, 0)]
    number = 0
    while stack:
        value, depth = stack.pop()
        number += 1
        if number > _MAX_VALUES or depth > _MAX_DEPTH:
            raise UnreadableError("its values refer to each other without end")
        yield value
        if isinstance(value, dict):
            stack += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            stack += [(part, depth + 1) for part in value]
