"""Hostile files, made byte by byte."""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

# Runs a command if a pickle is read in the usual way.
TOUCH = "touch ran"


def saved(content: object, **options: object) -> bytes:
    """Return the bytes that ``torch.save`` writes."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def repacked(
    archive: bytes,
    change: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
    more: Mapping[str, bytes] | None = None,
) -> bytes:
    """An archive of torch with other content and right checksums.

    Args:
        archive: What ``torch.save`` wrote.
        change: New content of its entries, by their names without the folder.
        compression: Of ``zipfile``.
        more: Further entries by their whole names.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, (change or {}).get(name.split("/", 1)[1], old.read(name)))
        for name, content in (more or {}).items():
            new.writestr(name, content)
    return file.getvalue()


def pickled_within(archive: bytes) -> bytes:
    """Return the pickle in an archive of torch."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(next(name for name in opened.namelist() if name.endswith("/data.pkl")))


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Return instructions of a pickle that call a function."""
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


def text(value: str) -> bytes:
    """Return instructions of a pickle for a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    """Return instructions of a pickle for an integer below 2⁶⁴."""
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tower(levels: int) -> bytes:
    """Return instructions for a tuple of 2 ** levels parts by references; hashing it as a key takes forever."""
    return (
        b"K\x00q\x00"
        + b"".join(b"h%c" % level * 2 + b"\x86q%c0" % (level + 1) for level in range(levels))
        + (b"h%c" % levels)
    )


def pickle_of(*instructions: bytes) -> bytes:
    """Make a pickle of instructions."""
    return b"\x80\x02" + b"".join(instructions) + b"."


def safetensors(header: bytes | str, data: bytes = b"", length: int | None = None) -> bytes:
    """Make a safetensors file with any header."""
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


BOMBS: dict[str, bytes] = {
    "os.system": call("os", "system", text(TOUCH)),
    "posix.system": call("posix", "system", text(TOUCH)),
    "eval": call("builtins", "eval", text("open('ran', 'w')")),
    "exec": call("builtins", "exec", text("open('ran', 'w')")),
    "getattr": call("builtins", "getattr", call("builtins", "__import__", text("os")), text("system")),
    "popen": call("subprocess", "Popen", text(TOUCH)),
    "torch.load": call("torch", "load", text("other.pt")),
    "hub": call("torch.hub", "load", text("somebody/repository"), text("model")),
    "inst": b"(" + text(TOUCH) + b"ios\nsystem\n",
    "obj": b"(cos\nsystem\n" + text(TOUCH) + b"o",
    "stack-global": text("os") + text("system") + b"\x93(" + text(TOUCH) + b"tR",
    "newobj": b"cos\nsystem\n)\x81",
    "nested": call("collections", "OrderedDict", b"](" + call("os", "system", text(TOUCH)) + b"e"),
    "build": call("collections", "OrderedDict") + call("os", "system", text(TOUCH)) + b"b",
    "bytearray": call("builtins", "bytearray", integer(1 << 40)),
    "float-tensor": call("torch", "FloatTensor", integer(1 << 40)),
    "storage": call("torch", "FloatStorage", integer(1 << 40)),
    "from-type": call(
        "torch._tensor", "_rebuild_from_type_v2", b"cbuiltins\nbytearray\n", b"ctorch\nTensor\n", integer(1 << 40), b"}"
    ),
}
"""Pickles that would run a program or fill the memory."""


Write = Callable[[Path], None]
