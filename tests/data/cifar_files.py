"""CIFAR-10's two official layouts, written byte by byte as their authors did."""

import struct
from pathlib import Path

import numpy as np


def write_binary(folder: Path, name: str, images: np.ndarray, labels: list[int]) -> None:
    """For each image a byte for its class and 3,072 for its pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [bytes([label]) + image.tobytes() for image, label in zip(images, labels)]
    (folder / f"{name}.bin").write_bytes(b"".join(rows))


def write_python(folder: Path, name: str, images: np.ndarray, labels: list[int]) -> None:
    """The pickle of a dictionary, as Python 2 with its NumPy wrote it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(python2_pickle(images, labels))


def python2_pickle(images: np.ndarray, labels: list[int]) -> bytes:
    """Protocol 2, strings of bytes."""
    kind = b"cnumpy\ndtype\n" + _text(b"u1") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + _text(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _text(b"b") + b"\x87R"
    shape = b"".join(_number(size) for size in images.shape) + b"\x86"
    array += b"(K\x01" + shape + kind + b"\x89" + _text(images.tobytes()) + b"tb"
    names = b"".join(_text(b"%d.png" % i) for i in range(len(labels)))
    entries = {
        b"batch_label": _text(b"training batch 1 of 5"),
        b"labels": b"](" + b"".join(map(_number, labels)) + b"e",
        b"data": array,
        b"filenames": b"](" + names + b"e",
    }
    return b"\x80\x02}(" + b"".join(_text(key) + value for key, value in entries.items()) + b"u."


def _text(content: bytes) -> bytes:
    short = len(content) < 256
    return (b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content


def _number(value: int) -> bytes:
    return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)
